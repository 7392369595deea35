extensions = {
    ["from-internal"] = {
        ["11888"] = function()
            app.Answer()
            app.Read("department", "vm-enter-num-to-call", 1)
            app.Dial("PJSIP/600" .. channel.department:get(), 30)
            app.Hangup()
        end,
    },
}
