#!/bin/sh
# build.sh TREE PACKAGE VERSION: builds the package beside this script, from a fresh tree, since make takes an object
# file that an interrupted build left for a complete one. The output is in build.log; "== " starts each step.
set -eu
cd "$(dirname "$0")"
exec > build.log 2>&1 < /dev/null
echo "== step 1 of 6: unpack"
rm -rf tree ./*.deb
mkdir tree
tar -xf "downloads/$1" -C tree --strip-components=1
rm -rf tree/debian
cp -R debian tree/debian
cat > tree/debian/changelog << END
labredes-asterisk ($3) unstable; urgency=medium

  * Built from the release named in debian/control.

 -- labredes.pbx <maintainers@labredes.example>  $(date -R -u -d 2021-01-01)
END
(cd tree && dpkg-buildpackage -b -us -uc -nc)
mv ./*+pbx.*.deb "$2"
