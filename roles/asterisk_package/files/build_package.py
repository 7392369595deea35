#!/usr/bin/python3
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build one Asterisk Debian package from verified sources, without a network.

Runs on the builder with Python 3.6 or later, as ``build_package.py SPEC``. SPEC is a JSON
file of the form::

    {"work": "/var/cache/…/<key>",      the directory of this build, with sources/ in it
     "release": "18.2.0",               the name of the release
     "tree": "asterisk-….tar.gz",       the source tree, below sources/
     "pjproject": "pjproject-2.10.tar.bz2" or null,
     "mp3": true,                       whether sources/mp3/ is to become addons/mp3
     "sounds": {"asterisk-core-sounds-es-wav-1.6.1.tar.gz": "sounds/es", …},
     "bootstrap": false,                whether ./configure has to be made first
     "enable": […], "disable": […],     menuselect names
     "configure": […],                  arguments of ./configure
     "environment": {…},                added to its environment
     "debug": "-g1",                    the compiler's debugging option
     "package": {"name": …, "version": …, "architecture": …, "conflicts": […], "file": …}}

Every step leaves a stamp when it is whole. A build that was cut short is taken up after its
last whole step; what a step was in the middle of is thrown away, because an object file cut
short looks finished to make. ``progress.json`` in the work directory always holds the step
under way, and the one-sentence error when a step failed; the full output is in ``build.log``.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

MODULES = "usr/lib/asterisk/modules"
DATA = "var/lib/asterisk"
# What make compiles of the tree by itself; the bundled pjproject is silent about its files.
COMPILED = (
    "addons",
    "agi",
    "apps",
    "bridges",
    "cdr",
    "cel",
    "channels",
    "codecs",
    "formats",
    "funcs",
    "main",
    "pbx",
    "res",
)
# make looks through the whole tree for documentation at each start; only the compile writes it.
WITHOUT_DOCUMENTATION = "DOC_MOD_SUBDIRS="
# The user is made by whoever installs the package; what it runs as must own what it writes.
POSTINST = """#!/bin/sh
set -e
ldconfig
if getent passwd asterisk > /dev/null; then
    chown asterisk:asterisk /var/lib/asterisk
    chown -R asterisk:asterisk /var/log/asterisk /var/spool/asterisk
fi
"""


class BuildError(Exception):
    """A failure that one sentence explains."""


class Build:
    """One build: its specification, its directories and its progress."""

    def __init__(self, spec):
        self.spec = spec
        self.work = spec["work"]
        self.sources = os.path.join(self.work, "sources")
        self.tree = os.path.join(self.work, "tree")
        self.stage = os.path.join(self.work, "stage")
        self.log = os.path.join(self.work, "build.log")
        self.environment = dict(os.environ, LC_ALL="C", **spec["environment"])
        self.step = {}

    def report(self, **values):
        """Write the progress file whole, so that a reader never sees half of it."""
        self.step.update(values)
        path = os.path.join(self.work, "progress.json")
        with open(path + ".new", "w") as stream:
            json.dump(self.step, stream)
        os.replace(path + ".new", path)

    def run(self, argv, what, watch=None):
        """Run a command in the source tree, its output in the log.

        ``watch`` is called with each line. Raises BuildError, naming ``what`` and the last
        line that speaks of an error, when the command fails.
        """
        complaint = ""
        with open(self.log, "a", encoding="utf-8", errors="replace") as log:
            log.write("+ %s\n" % " ".join(argv))
            process = subprocess.Popen(
                argv,
                cwd=self.tree,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace")
                log.write(line)
                if re.search(r"\berror\b|\*\*\*|No space left", line, re.IGNORECASE):
                    complaint = line.strip()
                if watch:
                    watch(line)
        if process.wait():
            raise BuildError(
                "%s failed%s; the whole output is in %s." % (what, ": " + complaint if complaint else "", self.log)
            )


def unpack(build):
    """Unpack the tree and put the other sources where its own build looks for them."""
    shutil.rmtree(build.tree, ignore_errors=True)
    os.makedirs(build.tree)
    with tarfile.open(os.path.join(build.sources, build.spec["tree"])) as archive:
        for member in archive:
            # Each name loses its first part, asterisk-<release>/.
            member.name = member.name.partition("/")[2]
            if member.islnk():
                member.linkname = member.linkname.partition("/")[2]
            if member.name and not member.name.startswith("/") and ".." not in member.name.split("/"):
                archive.extract(member, build.tree)
    if build.spec["pjproject"]:
        give_pjproject(build)
    if build.spec["mp3"]:
        give_mp3(build)


def give_pjproject(build):
    """Let the tree expect exactly the pjproject that was verified, compiled as the rest is."""
    name = build.spec["pjproject"]
    digest = hashlib.md5()
    with open(os.path.join(build.sources, name), "rb") as stream:
        digest.update(stream.read())
    directory = os.path.join(build.tree, "third-party/pjproject")
    with open(os.path.join(directory, name + ".md5"), "w") as stream:
        stream.write("%s  %s\n" % (digest.hexdigest(), name))
    # Its Makefile has a debugging option of its own, which would make more of it than of all the rest.
    makefile = os.path.join(directory, "Makefile")
    with open(makefile, encoding="utf-8") as stream:
        text = stream.read()
    with open(makefile, "w", encoding="utf-8") as stream:
        stream.write(text.replace(" -g3", " " + build.spec["debug"]))


def give_mp3(build):
    """Fill addons/mp3 as contrib/scripts/get_mp3_source.sh would leave it."""
    target = os.path.join(build.tree, "addons/mp3")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(os.path.join(build.sources, "mp3"), target)
    interface = os.path.join(target, "interface.c")
    with open(interface, encoding="utf-8", errors="surrogateescape") as stream:
        text = stream.read()
    if "ASTMM_LIBC" not in text:
        text = text.replace('#include "asterisk.h"', '#define ASTMM_LIBC ASTMM_REDIRECT\n#include "asterisk.h"', 1)
        with open(interface, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)


def configure(build):
    """Run ./configure, which takes every download from the sources directory."""
    if build.spec["bootstrap"]:
        build.run(["./bootstrap.sh"], "bootstrap.sh")
    build.run(["./configure", "--with-externals-cache=" + build.sources] + build.spec["configure"], "./configure")
    nothing_to_clean(build)


def nothing_to_clean(build):
    """Set the stamps without which make throws away, and makes again, what ./configure made of pjproject.

    They are as old as the tree, for make compares them with what was made since. menuselect removes the
    first one when the compiler's options change.
    """
    for stamp in (".lastclean", "third-party/pjproject/.rebuild_needed"):
        shutil.copy2(os.path.join(build.tree, ".cleancount"), os.path.join(build.tree, stamp))


def select(build):
    """Choose the options in one call of menuselect, then read back what it really chose.

    menuselect exits 0 for an unknown name and drops an option whose needs are not met; so the
    choice is read from menuselect.makeopts and a missing one is an error that names it.
    """
    build.run(["make", "menuselect.makeopts", WITHOUT_DOCUMENTATION], "make menuselect.makeopts")
    argv = ["menuselect/menuselect"]
    for category in ("MENUSELECT_CORE_SOUNDS", "MENUSELECT_EXTRA_SOUNDS", "MENUSELECT_MOH", "MENUSELECT_TESTS"):
        argv += ["--disable-category", category]
    for name in build.spec["disable"]:
        argv += ["--disable", name]
    for name in build.spec["enable"]:
        argv += ["--enable", name]
    build.run(argv + ["menuselect.makeopts"], "menuselect")
    wrong = selection_errors(build.tree, build.spec)
    if wrong:
        raise BuildError(" ".join(wrong))


def selection_errors(tree, spec):
    """Sentences, one for each option that menuselect did not take as asked."""
    chosen = {}
    with open(os.path.join(tree, "menuselect.makeopts")) as stream:
        for line in stream:
            name, equals, value = line.strip().partition("=")
            if equals:
                chosen.setdefault(name, set()).update(value.split())
    members = {}
    for category in ElementTree.parse(os.path.join(tree, "menuselect-tree")).iter("category"):
        listed_is_on = category.get("positive_output") == "yes"
        listed = chosen.get(category.get("name"), set())
        for member in category.iter("member"):
            needs = [need.text for need in member.iter("depend") if need.text]
            members[member.get("name")] = ((member.get("name") in listed) == listed_is_on, needs)
    wrong = []
    for name in spec["enable"]:
        if name not in members:
            wrong.append("Asterisk %s has no option %s." % (spec["release"], name))
        elif not members[name][0]:
            wrong.append(
                "%s was asked for and cannot be built: it needs %s, and ./configure did not find all of it."
                % (name, ", ".join(members[name][1]) or "something")
            )
    wrong += [
        "%s was to be left out and is still chosen." % name
        for name in spec["disable"]
        if members.get(name, (False,))[0]
    ]
    return wrong


def compile_all(build):
    """Compile on every core, reporting how many files are done."""
    nothing_to_clean(build)
    total = sum(
        name.endswith(".c")
        for part in COMPILED
        for _, _, names in os.walk(os.path.join(build.tree, part))
        for name in names
    )
    count = [0]

    def watch(line):
        if re.match(r"\s+\[(CC|CPP|CXX)", line):
            count[0] += 1
            if count[0] % 5 == 0:
                build.report(detail="%d files, about %d %%" % (count[0], min(99, 100 * count[0] // total)))

    build.run(
        ["make", "-j%d" % len(os.sched_getaffinity(0)), "DEBUG=" + build.spec["debug"], "ASTDATADIR=/" + DATA],
        "make",
        watch,
    )


def install(build):
    """Install into the stage; the sounds are unpacked here, for `make install` would fetch them."""
    shutil.rmtree(build.stage, ignore_errors=True)
    os.makedirs(build.stage)
    build.run(
        [
            "make",
            "install",
            "DESTDIR=" + build.stage,
            "DEBUG=" + build.spec["debug"],
            "ASTDATADIR=/" + DATA,
            WITHOUT_DOCUMENTATION,
        ],
        "make install",
    )
    for name, place in build.spec["sounds"].items():
        target = os.path.join(build.stage, DATA, place)
        os.makedirs(target, exist_ok=True)
        with tarfile.open(os.path.join(build.sources, name)) as archive:
            archive.extractall(target)
    # Configuration has one owner, the role that renders it.
    shutil.rmtree(os.path.join(build.stage, "etc"), ignore_errors=True)
    # Made at run time, or left there by the bundled pjproject.
    for directory in ("var/run", "run", "tmp"):
        shutil.rmtree(os.path.join(build.stage, directory), ignore_errors=True)
    missing = missing_from_stage(build.stage, build.spec)
    if missing:
        raise BuildError("Asked for and not built: %s; the whole output is in %s." % (", ".join(missing), build.log))


def missing_from_stage(stage, spec):
    """Names of the options and sounds that were asked for and are not in the stage."""
    missing = [
        name
        for name in spec["enable"]
        if re.match(r"(app|bridge|cdr|cel|chan|codec|format|func|pbx|res)_", name)
        and not os.path.isfile(os.path.join(stage, MODULES, name + ".so"))
    ]
    for name, place in spec["sounds"].items():
        directory = os.path.join(stage, DATA, place)
        if not os.path.isdir(directory) or not os.listdir(directory):
            missing.append(name)
    return missing


def package(build):
    """Make the Debian package, its dependencies computed from what the binaries link to."""
    wanted = build.spec["package"]
    binaries = [
        os.path.join(top, name)
        for part in ("usr/sbin", "usr/lib")
        for top, _, names in os.walk(os.path.join(build.stage, part))
        for name in names
        if is_elf(os.path.join(top, name))
    ]
    scratch = os.path.join(build.work, "shlibdeps")
    os.makedirs(os.path.join(scratch, "debian"), exist_ok=True)
    with open(os.path.join(scratch, "debian/control"), "w") as stream:
        stream.write("Source: %s\n\nPackage: %s\nArchitecture: any\n" % (wanted["name"], wanted["name"]))
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as side_by_side:
        depends = side_by_side.map(
            lambda part: linked_to(build, scratch, part), (binaries[i::cores] for i in range(cores))
        )
    depends = ", ".join(sorted(set().union(*depends)))
    control = os.path.join(build.stage, "DEBIAN")
    os.makedirs(control, exist_ok=True)
    size = subprocess.check_output(["du", "-sk", build.stage]).split()[0].decode()
    others = ", ".join(wanted["conflicts"])
    with open(os.path.join(control, "control"), "w") as stream:
        stream.write(
            "".join(
                "%s: %s\n" % field
                for field in (
                    ("Package", wanted["name"]),
                    ("Version", wanted["version"]),
                    ("Architecture", wanted["architecture"]),
                    ("Section", "comm"),
                    ("Priority", "optional"),
                    ("Maintainer", "labredes.pbx <maintainers@labredes.example>"),
                    ("Installed-Size", size),
                    ("Depends", depends),
                    ("Conflicts", others),
                    ("Replaces", others),
                    ("Description", "Asterisk %s, built from source by labredes.pbx" % build.spec["release"]),
                )
            )
        )
    with open(os.path.join(control, "postinst"), "w") as stream:
        stream.write(POSTINST)
    os.chmod(os.path.join(control, "postinst"), 0o755)
    target = os.path.join(build.work, wanted["file"])
    build.run(["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", build.stage, target + ".new"], "dpkg-deb")
    os.replace(target + ".new", target)


def linked_to(build, scratch, binaries):
    """The set of Debian's dependencies, like ``libc6 (>= 2.28)``, that some binaries link to."""
    output = subprocess.run(
        ["dpkg-shlibdeps", "-O", "--ignore-missing-info", "-l" + os.path.join(build.stage, "usr/lib")]
        + ["-e" + path for path in binaries],
        cwd=scratch,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    depends = re.search(r"^shlibs:Depends=(.*)$", output.stdout.decode(), re.MULTILINE)
    if output.returncode or not depends:
        raise BuildError("dpkg-shlibdeps failed: %s" % output.stderr.decode("utf-8", "replace").strip()[-300:])
    return set(depends.group(1).split(", "))


def is_elf(path):
    """Whether a file is a binary for the linker."""
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    with open(path, "rb") as stream:
        return stream.read(4) == b"\x7fELF"


STEPS = (
    ("unpack", unpack),
    ("configure", configure),
    ("choose the options", select),
    ("compile", compile_all),
    ("install and check", install),
    ("package", package),
)


def main(path):
    """Do the steps that are not done yet; returns the exit code."""
    with open(path) as stream:
        build = Build(json.load(stream))
    whole = os.path.join(build.work, "whole")
    under_way = os.path.join(build.work, "under-way")
    os.makedirs(whole, exist_ok=True)
    if os.path.exists(under_way):
        with open(under_way) as stream:
            if stream.read() not in ("install and check", "package"):
                # Cut short while the tree was written to: only a fresh tree is sure to be right.
                shutil.rmtree(whole)
                os.makedirs(whole)
    for number, (name, step) in enumerate(STEPS, 1):
        stamp = os.path.join(whole, name.replace(" ", "-"))
        if os.path.exists(stamp):
            continue
        started = time.time()
        build.report(step=name, number=number, of=len(STEPS), started=started, detail="", error="")
        with open(under_way, "w") as stream:
            stream.write(name)
        try:
            step(build)
        except (BuildError, OSError, tarfile.TarError) as error:
            build.report(error="Asterisk %s, step %s: %s" % (build.spec["release"], name, error))
            return 1
        with open(stamp, "w") as stream:
            stream.write("%.1f\n" % (time.time() - started))
        os.remove(under_way)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
