# Installs the package $1 where the installation of another one was interrupted, after which apt refuses everything.
state=$(dpkg-query --show --showformat='${db:Status-Status}' labredes-asterisk 2> /dev/null)
case $state in
"" | installed | not-installed | config-files) ;;
*) dpkg --install "$1" ;;
esac
