# Prints each file system that has less space than the directories given as DIRECTORY=MEGABYTES need on it together.
for pair in "$@"; do
    df -P -m "${pair%=*}" | awk -v "name=${pair%=*}" -v "need=${pair#*=}" 'NR == 2 { print $6, $4, need, name }'
done | awk '
    { free[$1] = $2; need[$1] += $3; names[$1] = names[$1] (names[$1] ? " and " : "") $4 }
    END {
        for (mount in need) if (free[mount] < need[mount])
            printf "%s has %d MB free, and what is installed in %s needs %d MB\n", mount, free[mount], names[mount], need[mount]
    }'
