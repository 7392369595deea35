"""The release table pins all that a build downloads, and a package's key follows from what decides its content."""

from __future__ import annotations

import re
import shutil
import tarfile

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.filter import asterisk_release
from rendering import trusted

ROLE = rendering.ROLES / "asterisk_package"
PINNED = rendering.load(ROLE / "vars/main/pinned_sources.yml")
TABLE, DIGESTS = PINNED["__asterisk_package_releases"], PINNED["__asterisk_package_digests"]
LENGTHS = {"sha256": 64, "md5": 32}
SHA256, MD5 = "sha256:" + "0" * 64, "md5:" + "0" * 32


def value(name: str, **variables):
    """A variable of the role, with some of one's own."""
    known = {
        **rendering.defaults("labredes"),
        **rendering.role_variables("asterisk_package", rendering.FACTS["Debian 11"]),
        "ansible_facts": rendering.FACTS["Debian 11"],
        "inventory_hostname": rendering.HOST,
        "role_path": str(ROLE),
        **trusted(variables),
    }
    return rendering.evaluate("{{ " + name + " }}", known)


def key(**variables) -> str:
    """The key of the package."""
    return value("__asterisk_package_key", **variables)


@pytest.mark.parametrize("name", TABLE)
def test_every_download_of_a_release_is_pinned(name):
    release = TABLE[name]
    assert re.fullmatch(r"[0-9a-f]{40}", release["commit"])
    assert set(release) <= {"commit", "pjproject", "sounds", "lacks", "advised"}
    downloads = value("__asterisk_package_downloads", asterisk_package_release=name)
    assert {download["name"].split("-")[0].split("/")[0] for download in downloads} == {"asterisk", "mp3", "pjproject"}
    assert value("__asterisk_package_unpinned", asterisk_package_release=name) == []
    assert all(download["urls"] for download in downloads)


@pytest.mark.parametrize("name", TABLE)
def test_release_lacks_the_options_that_upstream_removed(name):
    major = int(name.split(".")[0])
    removed = {"app_mysql": 19, "cdr_mysql": 19, "app_macro": 21}
    assert set(TABLE[name]["lacks"]) == {option for option, since in removed.items() if major >= since}
    default = set(value("asterisk_package_default_enable"))
    enabled = set(value("__asterisk_package_options", asterisk_package_release=name))
    assert enabled == default - set(TABLE[name]["lacks"])


def test_default_release_is_in_the_table():
    assert rendering.load(ROLE / "defaults/main.yml")["asterisk_package_release"] in TABLE


@pytest.mark.parametrize("file", DIGESTS)
def test_digest_has_the_length_of_its_kind(file):
    for checksum in DIGESTS[file]:
        kind, _, digits = checksum.partition(":")
        assert re.fullmatch(rf"[0-9a-f]{{{LENGTHS[kind]}}}", digits), checksum


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("18.2.0", True),
        ("16.30.1", True),
        ("18.18.0", True),
        ("18.19.0", False),
        ("18.26.4", False),
        ("22.1-own", False),
    ],
)
def test_old_release_gets_what_configure_misses(name, given):
    environment = value("__asterisk_package_environment", asterisk_package_release=name)
    assert environment["LUA_VERSIONS"] == "5.2" and ("COPTS" in environment) is given


def test_extra_option_is_added_to_the_default_ones():
    options = value("__asterisk_package_options", asterisk_package_extra_enable=["app_adsiprog"])
    assert set(options) == set(value("__asterisk_package_options")) | {"app_adsiprog"}


@pytest.mark.parametrize("disable", [[], ["app_adsiprog"], ["BUILD_NATIVE"]])
def test_build_native_is_disabled_whatever_else_is(disable):
    disabled = value("__asterisk_package_disabled", asterisk_package_disable=disable)
    assert len(disabled) == len(set(disabled)) and set(disabled) == {"BUILD_NATIVE", *disable}


def test_build_native_is_built_when_enabled_by_name():
    assert value("__asterisk_package_disabled", asterisk_package_extra_enable=["BUILD_NATIVE"]) == []


@pytest.mark.parametrize(("language", "directory"), [("es", "sounds/es"), ("en", "sounds/en")])
def test_language_decides_which_sounds_are_built(language, directory):
    sounds = value("__asterisk_package_sound_directories", labredes_language=language)
    assert sounds[f"asterisk-core-sounds-{language}-wav-1.6.1.tar.gz"] == directory
    assert value("__asterisk_package_unpinned", labredes_language=language) == []


@pytest.mark.parametrize(
    ("variables", "unpinned"),
    [
        ({"labredes_language": "fr"}, "asterisk-core-sounds-fr-wav-1.6.1.tar.gz"),
        (
            {"__asterisk_package_releases": {"18.2.0": {**TABLE["18.2.0"], "pjproject": {"version": "9"}}}},
            "pjproject-9.",
        ),
        (
            {"__asterisk_package_releases": {"18.2.0": {**TABLE["18.2.0"], "archive": {"name": "a", "checksums": []}}}},
            "a",
        ),
        ({"__asterisk_package_releases": {"18.2.0": {**TABLE["18.2.0"], "archive": {"name": "a"}}}}, "a"),
        *(
            ({"asterisk_package_extra_releases": {"18.2.0": {**TABLE["18.2.0"], "archive": archive}}}, "a")
            for archive in (
                {"name": "a", "checksums": None},
                {"name": "a", "checksums": ["0" * 64]},
                {"name": "a", "checksums": [SHA256[:-1]]},
                {"name": "a", "checksums": [SHA256, MD5[:-1]]},
                {"name": "a", "checksums": SHA256},
            )
        ),
    ],
)
def test_file_without_checksum_is_unpinned(variables, unpinned):
    assert [name[: len(unpinned)] for name in value("__asterisk_package_unpinned", **variables)] == [unpinned]


@pytest.mark.parametrize(
    ("mirror", "first"),
    [
        ("/srv/m", "file:///srv/m/"),
        ("/srv/a b/", "file:///srv/a%20b/"),
        ("https://m.example/x/", "https://m.example/x/"),
    ],
)
def test_mirror_comes_before_upstream(mirror, first):
    for download in value("__asterisk_package_downloads", asterisk_package_mirror=mirror):
        assert download["urls"][0] == first + download["name"]
        assert download["urls"][1].startswith("https://") and not download["urls"][1].startswith(first)


def test_archive_of_a_release_may_have_urls_of_its_own():
    release = {
        "archive": {"name": "a.tar.gz", "checksums": [SHA256], "urls": ["https://x.example/a.tar.gz"]},
        "pjproject": {"version": "1", "checksums": [MD5]},
        "sounds": {"core": "1.6.1", "moh": "2.03"},
    }
    archive, pjproject = asterisk_release.asterisk_downloads(release, [], DIGESTS)
    assert archive == {"name": "a.tar.gz", "urls": ["https://x.example/a.tar.gz"], "checksums": [SHA256]}
    assert pjproject["checksums"] == [MD5]
    del release["archive"]["urls"]
    archive, _ = asterisk_release.asterisk_downloads(release, [], DIGESTS)
    assert [url.rsplit("/", 2)[1] for url in archive["urls"]] == ["releases", "old-releases"]


def test_file_with_a_wrong_checksum_is_missing(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    right, wrong = f"sha256:{empty}", "md5:" + "0" * 32
    for checksums, missing in [
        ([right], False),
        ([right.upper().replace("SHA", "sha")], False),
        ([right, wrong], True),
    ]:
        download = {"name": "a", "checksums": checksums}
        assert bool(asterisk_release.missing_downloads([download], tmp_path)) is missing
    assert asterisk_release.missing_downloads([{"name": "b", "checksums": [right]}], tmp_path)


def changed(place, name: str):
    """A copy of the role in which one file of the recipe has a line more."""
    shutil.copytree(ROLE, place / name.replace("/", "_"))
    with (place / name.replace("/", "_") / name).open("a") as recipe:
        recipe.write("# changed\n")
    return str(place / name.replace("/", "_"))


def test_key_follows_from_what_decides_the_content(tmp_path):
    files = [path.relative_to(ROLE) for top in ("files", "templates") for path in (ROLE / top).rglob("*")]
    recipe = [str(file) for file in files if (ROLE / file).is_file() and file.parent.name != "__pycache__"]
    assert {"files/build.sh", "files/debian/rules", "templates/debian/control.j2"} <= set(recipe)
    descriptions = [
        {},
        {"asterisk_package_release": "18.26.4"},
        {"asterisk_package_enable": ["pbx_lua"]},
        {"asterisk_package_extra_enable": ["app_adsiprog"]},
        {"asterisk_package_enable": ["pbx_lua", "CORE-SOUNDS-ES-WAV"]},
        {"asterisk_package_disable": ["app_adsiprog"]},
        {"asterisk_package_debug": "-g3"},
        {"asterisk_package_extra_build_dependencies": ["libfoo-dev"]},
        {"__asterisk_package_build_dependencies": ["libfoo-dev"]},
        {"__asterisk_package_configure": ["--without-x"]},
        {"__asterisk_package_environment": {"LUA_VERSIONS": "5.3"}},
        {"__asterisk_package_conflicts": ["asterisk"]},
        {"labredes_language": "en"},
        {"ansible_facts": rendering.FACTS["Debian 12"]},
        {"ansible_facts": rendering.FACTS["Ubuntu 18.04"]},
        {"ansible_facts": {**rendering.FACTS["Debian 11"], "architecture": "aarch64"}},
        {"asterisk_package_extra_releases": {"18.2.0": {**TABLE["18.2.0"], "commit": "0" * 40}}},
        {"asterisk_package_extra_releases": {"18.2.0": {**TABLE["18.2.0"], "bootstrap": True}}},
        {"__asterisk_package_digests": {**DIGESTS, "pjproject-2.10.tar.bz2": ["sha256:" + "0" * 64]}},
        *({"role_path": changed(tmp_path, name)} for name in recipe),
    ]
    keys = [key(**each) for each in descriptions]
    assert all(re.fullmatch(r"[0-9a-f]{12}", each) for each in keys)
    assert len(set(keys)) == len(descriptions)


@pytest.mark.parametrize(
    "variables",
    [
        {"asterisk_package_mirror": "/srv/mirror"},
        {"asterisk_package_git_url": "/srv/asterisk.git"},
        {"asterisk_package_cache": "/srv/cache"},
        {"asterisk_package_build_directory": "/srv/build"},
        {"asterisk_package_build_timeout": 60},
        {"inventory_hostname": "pbx2"},
        {"ansible_facts": {**rendering.FACTS["Debian 11"], "distribution_version": "11.11"}},
        {"asterisk_package_extra_enable": ["pbx_lua"]},
        {"asterisk_package_disable": ["BUILD_NATIVE"]},
    ],
)
def test_key_ignores_what_does_not_decide_the_content(variables):
    assert key(**variables) == key()


def test_key_ignores_the_order_of_the_options():
    enable = value("asterisk_package_enable")
    assert key(asterisk_package_enable=enable) == key(asterisk_package_enable=enable[::-1])


def test_options_are_read_from_the_tree(tmp_path):
    tree = tmp_path / "asterisk-1"
    for name in ("apps/app_macro.c", "channels/chan_ooh323.c", "addons/format_mp3.c", "main/cdr.c", "res/res_x.cc"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "build_tools").mkdir()
    (tree / "build_tools/cflags.xml").write_text('<category name="C"><member name="BUILD_NATIVE"/></category>\n')
    with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as archive:
        archive.add(tree, "asterisk-1")
    assert asterisk_release.asterisk_options(tmp_path / "tree.tar.gz") == [
        "BUILD_NATIVE",
        "app_macro",
        "chan_ooh323",
        "format_mp3",
        "res_x",
    ]


@pytest.mark.parametrize(
    ("package", "failed", "builder"),
    [("a", [], "p1"), ("b", [], "b1"), ("a", ["p1"], "p3"), ("b", ["b1"], "p2"), ("a", ["b1"], "p1")],
)
def test_builder_needs_the_package_and_has_not_failed(package, failed, builder):
    needs = {"p1": "a", "p2": "b", "p3": "a", "b1": "b"}
    assert (
        value(
            "__asterisk_package_builder",
            asterisk_package_deb=package,
            groups={"pbx": ["p1", "p2", "p3"], "builders": ["b1"]},
            ansible_play_hosts=[host for host in needs if host not in failed],
            hostvars={host: {"inventory_hostname": host, "asterisk_package_deb": deb} for host, deb in needs.items()},
        )
        == builder
    )


def test_release_notes_are_in_order_and_in_the_documentation():
    notes = rendering.load(rendering.ROLES / "asterisk/vars/release_notes.yml")["__asterisk_release_notes"]
    versions = [tuple(map(int, note["release"].split("."))) for note in notes]
    assert versions == sorted(versions) and all(note["note"].endswith(".") for note in notes)
    text = (rendering.ROOT / "docs/upgrade.md").read_text()
    gone = [name for note in notes if note["note"].startswith("these modules") for name in note["modules"]]
    assert [name for name in gone if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("packages", "tags", "whole", "upgraded"),
    [
        ([], ["all"], True, True),
        (["labredes-asterisk"], ["all"], True, False),
        (["labredes-asterisk"], ["upgrade"], True, True),
        (["labredes-asterisk"], ["all"], False, True),
    ],
    ids=["new", "exchange", "tag", "playbook"],
)
def test_only_a_new_host_is_upgraded_unasked(packages, tags, whole, upgraded):
    known = rendering.load(rendering.ROLES / "system/vars/main/packages.yml")
    (task,) = [
        task
        for task in rendering.load(rendering.ROLES / "system/tasks/upgrade.yml")
        if "upgrade" in task.get("labredes.pbx.apt", {})
    ]
    (step,) = [
        step
        for step in rendering.load(rendering.ROOT / "playbooks/site.yml")
        if step["import_playbook"] == "upgrade.yml"
    ]
    known.update(preflight_packages=packages, ansible_run_tags=tags, __system_packages=["debsums"])
    known.update(step["vars"] if whole else {})
    assert rendering.evaluate("{{ " + task["when"] + " }}", known) is upgraded
