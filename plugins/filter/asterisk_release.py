# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn a release and its options into downloads, a key and directories of sounds."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

DOCUMENTATION = r"""
name: asterisk_release
short_description: Downloads, options and key of an Asterisk package
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - P(labredes.pbx.asterisk_downloads#filter) lists the files that a release with some options is built from.
  - P(labredes.pbx.missing_downloads#filter) lists those that a directory does not have with the right checksums.
  - P(labredes.pbx.asterisk_options#filter) lists every option name that a source tree knows.
  - P(labredes.pbx.sound_directories#filter) maps the archives of sounds to where they are unpacked.
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
FLAGS = ("build_tools/cflags.xml", "build_tools/cflags-devmode.xml")
CHECKSUM = re.compile(r"sha256:[0-9A-Fa-f]{64}|sha512:[0-9A-Fa-f]{128}|md5:[0-9A-Fa-f]{32}")
SOUND = re.compile(r"^(CORE-SOUNDS|EXTRA-SOUNDS|MOH)-([A-Z]+(?:-[A-Z]+)?)-([A-Z0-9]+)$")


def asterisk_downloads(release, enable, digests, mirror=""):
    """The files that a release is built from, a git tree excepted, as ``[{"name": …, "urls": […], "checksums": […]}]``.

    ``release`` is an entry of the release table, ``digests`` maps a file's name to its checksums; an entry's own
    ``checksums`` take precedence; a file with a misspelt one has none. ``mirror`` is a directory or URL that comes
    before upstream.
    """
    pins = {**digests, **release.get("checksums", {})}
    archive, pjproject = release.get("archive", {}), release["pjproject"]
    urls = {}
    if archive:
        urls[archive["name"]] = archive.get("urls", [base + archive["name"] for base in RELEASES])
        pins[archive["name"]] = archive.get("checksums", [])
    name = f"pjproject-{pjproject['version']}.tar.bz2"
    urls[name] = [f"{THIRD_PARTY}{pjproject['version']}/{name}"]
    pins[name] = pjproject.get("checksums") or pins.get(name, [])
    if "format_mp3" in enable:
        urls.update({name: [MP3 + name.removeprefix("mp3/")] for name in digests if name.startswith("mp3/")})
    urls.update({name: [SOUNDS + name] for name in sound_directories(enable, release["sounds"])})
    if mirror and "://" not in mirror:
        mirror = Path(mirror).expanduser().absolute().as_uri()
    return [
        {
            "name": name,
            "urls": ([f"{mirror.rstrip('/')}/{name}"] if mirror else []) + list(upstream),
            "checksums": list(pins[name]) if all(map(CHECKSUM.fullmatch, pins.get(name) or [""])) else [],
        }
        for name, upstream in sorted(urls.items())
    ]


def missing_downloads(downloads, directory):
    """Those of the downloads that are not in the directory with every one of their checksums."""

    def there(download):
        path = Path(directory, download["name"])
        content = path.read_bytes() if path.is_file() else b""
        checksums = [checksum.split(":") for checksum in download["checksums"]]
        return path.is_file() and all(
            hashlib.new(kind, content).hexdigest() == digits.lower() for kind, digits in checksums
        )

    return [download for download in downloads if not there(download)]


def asterisk_options(path):
    """Every option name that the tree in a tar archive knows: its modules and compiler flags."""
    names = set()
    with tarfile.open(path) as archive:
        for member in archive:
            module = MODULE.match(member.name)
            if module:
                names.add(module.group(1))
            elif member.name.endswith(FLAGS) and (flags := archive.extractfile(member)):
                tree = ElementTree.fromstring(b"<all>" + flags.read() + b"</all>")
                names.update(flag.get("name") for flag in tree.iter("member"))
    return sorted(names)


def sound_directories(enable, versions):
    """Where each archive of sounds is unpacked below the data directory.

    ``["CORE-SOUNDS-ES-WAV"]`` with ``{"core": "1.6.1", "moh": "2.03"}`` gives
    ``{"asterisk-core-sounds-es-wav-1.6.1.tar.gz": "sounds/es"}``.
    """
    directories = {}
    for sound in filter(None, map(SOUND.match, enable)):
        kind, language, _ = sound.groups()
        version = versions["moh" if kind == "MOH" else "core"]
        directory = "moh" if kind == "MOH" else "sounds/" + language.lower().replace("-", "_")
        directories[f"asterisk-{sound.string.lower()}-{version}.tar.gz"] = directory
    return directories


def package_key(facts, directories):
    """The first 12 hexadecimal digits of the sha256 of some facts and of every file in some directories."""
    recipe = {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for directory in map(Path, directories)
        for path in directory.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    return hashlib.sha256(json.dumps([facts, recipe], sort_keys=True).encode()).hexdigest()[:12]


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """Names as used in templates."""
        return {
            "asterisk_downloads": asterisk_downloads,
            "missing_downloads": missing_downloads,
            "asterisk_options": asterisk_options,
            "sound_directories": sound_directories,
            "package_key": package_key,
        }
