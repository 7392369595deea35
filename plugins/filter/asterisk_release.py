# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn a release and its options into sources, a key and a builder's specification."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import PurePosixPath

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: asterisk_release
short_description: Sources, options and key of an Asterisk package
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - P(labredes.pbx.asterisk_sources#filter) lists the sources of a release with the options asked for.
  - P(labredes.pbx.asterisk_options#filter) lists every option name that a source tree knows.
  - P(labredes.pbx.package_key#filter) is the digest that names a build.
"""

THIRD_PARTY = "https://raw.githubusercontent.com/asterisk/third-party/master/pjproject/"
SOUNDS = "https://downloads.asterisk.org/pub/telephony/sounds/releases/"
RELEASES = (
    "https://downloads.asterisk.org/pub/telephony/asterisk/releases/",
    "https://downloads.asterisk.org/pub/telephony/asterisk/old-releases/",
)
MP3 = "https://svn.digium.com/svn/thirdparty/mp3/trunk/"
MODULE = re.compile(
    r"^[^/]+/(?:addons|apps|bridges|cdr|cel|channels|codecs|formats|funcs|pbx|res|tests)/([^/]+)\.(?:c|cc)$"
)
SOUND = re.compile(r"^(CORE-SOUNDS|EXTRA-SOUNDS|MOH)-([A-Z]+(?:-[A-Z]+)?)-([A-Z0-9]+)$")


def sound_archive(option, versions):
    """The archive of a sound option and where it is unpacked below the data directory.

    ``CORE-SOUNDS-ES-WAV`` with ``{"core": "1.6.1", "moh": "2.03"}`` gives
    ``("asterisk-core-sounds-es-wav-1.6.1.tar.gz", "sounds/es")``.
    """
    kind, language, _ = SOUND.match(option).groups()
    version = versions["moh" if kind == "MOH" else "core"]
    place = "moh" if kind == "MOH" else "sounds/" + language.lower().replace("-", "_")
    return f"asterisk-{option.lower()}-{version}.tar.gz", place


def asterisk_sources(release, name, enable, digests, git_url):
    """The sources of a release, in the form that labredes.pbx.sources takes.

    ``release`` is an entry of the release table, ``digests`` maps a file's name to its checksums;
    an entry's own ``checksums`` come first. A file that is pinned nowhere is refused.
    """
    pins = {**digests, **release.get("checksums", {})}
    version = release["pjproject"]["version"]
    pjproject = f"pjproject-{version}.tar.bz2"
    if release["pjproject"].get("checksums"):
        pins[pjproject] = release["pjproject"]["checksums"]

    def pinned(file, *urls):
        if not pins.get(file):
            raise AnsibleFilterError(
                f"{file} is pinned nowhere; give its sha256 under checksums of release {name} "
                "in asterisk_package_extra_releases."
            )
        return {"name": file, "urls": list(urls), "checksums": pins[file]}

    if "commit" in release:
        sources = [
            {
                "name": f"asterisk-{name}-{release['commit'][:12]}.tar.gz",
                "git": git_url,
                "commit": release["commit"],
                "ref": name,
            }
        ]
    else:
        archive = release["archive"]
        sources = [
            {
                "name": archive["name"],
                "checksums": archive.get("checksums", []),
                "urls": archive.get("urls", [base + archive["name"] for base in RELEASES]),
            }
        ]
    sources.append(pinned(pjproject, f"{THIRD_PARTY}{version}/{pjproject}"))
    if "format_mp3" in enable:
        sources += [pinned(file, MP3 + file[len("mp3/") :]) for file in sorted(digests) if file.startswith("mp3/")]
    for option in sorted(enable):
        if SOUND.match(option):
            archive = sound_archive(option, release["sounds"])[0]
            sources.append(pinned(archive, SOUNDS + archive))
    return sources


def asterisk_options(path):
    """Every option name that the tree in a tar archive knows: its modules and compiler flags."""
    names = set()
    with tarfile.open(path) as archive:
        for member in archive:
            module = MODULE.match(member.name)
            if module:
                names.add(module.group(1))
            elif member.name.endswith(("build_tools/cflags.xml", "build_tools/cflags-devmode.xml")):
                tree = ElementTree.fromstring(b"<all>" + archive.extractfile(member).read() + b"</all>")
                names.update(flag.get("name") for flag in tree.iter("member"))
    return sorted(names)


def sound_places(enable, versions):
    """Where each sound archive asked for is unpacked: ``{archive: directory}``."""
    return dict(sound_archive(option, versions) for option in enable if SOUND.match(option))


def package_key(facts):
    """The first 12 hexadecimal digits of the sha256 of all that decides what a build gives.

    Of each source only what pins it counts, not where it is fetched from.
    """
    pins = [
        {name: source[name] for name in ("name", "checksums", "commit") if name in source}
        for source in facts["sources"]
    ]
    facts = {**facts, "sources": sorted(pins, key=lambda pin: pin["name"])}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def elected_builder(package, groups, hostvars):
    """The one host that builds a package: of those that need it, the first builder, else the first exchange.

    ``package`` is the path in ``asterisk_package_deb``, a fact that each of those hosts has set.
    """
    hosts = [*groups.get("builders", []), *groups.get("pbx", [])]
    return next(host for host in hosts if hostvars[host].get("asterisk_package_deb") == package)


def parents(path):
    """A directory and all above it: ``/var/cache`` gives ``["/var/cache", "/var", "/"]``."""
    return [str(path)] + [str(above) for above in PurePosixPath(path).parents]


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """Names as used in templates."""
        return {
            "asterisk_sources": asterisk_sources,
            "asterisk_options": asterisk_options,
            "package_key": package_key,
            "sound_places": sound_places,
            "parents": parents,
            "elected_builder": elected_builder,
        }
