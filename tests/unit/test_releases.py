"""The release table pins all that a build fetches, and a package's key follows from what decides the build."""

from __future__ import annotations

import re
import shutil
import tarfile

import pytest
import rendering
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.labredes.pbx.plugins.filter import asterisk_release

ROLE = rendering.ROLES / "asterisk_package"
TABLE = rendering.load(ROLE / "vars/main.yml")["__asterisk_package_releases"]
DIGESTS = rendering.load(ROLE / "vars/sources.yml")["__asterisk_package_digests"]
LENGTHS = {"sha256": 64, "md5": 32, "sha1": 40, "sha512": 128}


def describe(**told) -> Templar:
    """A templar over the role's variables, with a description of one's own."""
    return Templar(
        DataLoader(),
        {
            **rendering.defaults("labredes"),
            **rendering.role_variables("asterisk_package", rendering.FACTS["Debian 11"]),
            "__asterisk_package_digests": DIGESTS,
            "ansible_facts": rendering.FACTS["Debian 11"],
            "inventory_hostname": rendering.HOST,
            "role_path": str(ROLE),
            **told,
        },
    )


def key(**told) -> str:
    """The key of the package that a description asks for, by the role's own expression."""
    task = next(task for task in rendering.load(ROLE / "tasks/locate.yml") if "ansible.builtin.set_fact" in task)
    role_path = told.pop("role_path", str(ROLE))
    return describe(role_path=role_path, **told).template(task["vars"]["__asterisk_package_key"])


@pytest.mark.parametrize("name", TABLE)
def test_release_is_pinned_whole(name):
    release = TABLE[name]
    assert re.fullmatch(r"[0-9a-f]{40}", release["commit"])
    major = int(name.split(".")[0])
    gone = {"app_mysql": 19, "cdr_mysql": 19, "app_macro": 21}
    assert set(release.get("lacks", [])) == {option for option, since in gone.items() if major >= since}
    assert set(release) <= {"commit", "pjproject", "sounds", "lacks", "advised"}
    sources = describe(asterisk_package_release=name).template("{{ __asterisk_package_sources }}")
    assert sources[0]["commit"] == release["commit"] and sources[0]["ref"] == name
    assert {source["name"].split("-")[0].split("/")[0] for source in sources} == {"asterisk", "pjproject", "mp3"}
    for source in sources[1:]:
        assert source["checksums"] and source["urls"], source


def test_the_default_is_in_the_table():
    assert rendering.load(ROLE / "defaults/main.yml")["asterisk_package_release"] in TABLE


@pytest.mark.parametrize("file", DIGESTS)
def test_digests_have_the_length_of_their_kind(file):
    for checksum in DIGESTS[file]:
        kind, _, value = checksum.partition(":")
        assert re.fullmatch(rf"[0-9a-f]{{{LENGTHS[kind]}}}", value), checksum


def test_what_a_release_lacks_is_out_of_its_defaults():
    everything = set(describe().template("{{ __asterisk_package_enable }}"))
    for name, release in TABLE.items():
        chosen = set(describe(asterisk_package_release=name).template("{{ asterisk_package_enable }}"))
        assert chosen == everything - set(release.get("lacks", []))
    assert {
        "res_config_mysql",
        "cdr_mysql",
        "app_mysql",
        "chan_ooh323",
        "app_macro",
        "format_mp3",
        "CORE-SOUNDS-ES-WAV",
    } <= set(describe().template("{{ asterisk_package_enable }}"))


def test_a_file_that_is_pinned_nowhere_is_refused():
    with pytest.raises(
        AnsibleFilterError, match=r"asterisk-core-sounds-fr-gsm-1\.6\.1\.tar\.gz is pinned nowhere; give"
    ):
        asterisk_release.asterisk_sources(TABLE["18.2.0"], "18.2.0", ["CORE-SOUNDS-FR-GSM"], DIGESTS, "git")
    release = {**TABLE["18.2.0"], "pjproject": {"version": "9.9"}}
    with pytest.raises(AnsibleFilterError, match=r"pjproject-9\.9\.tar\.bz2 is pinned nowhere"):
        asterisk_release.asterisk_sources(release, "18.2.0", [], DIGESTS, "git")


def test_a_release_of_ones_own_may_come_as_an_archive():
    release = {
        "archive": {"name": "asterisk-18.2.2.tar.gz"},
        "pjproject": {"version": "1", "checksums": ["md5:0"]},
        "sounds": {"core": "1.6.1", "moh": "2.03"},
    }
    archive, pjproject = asterisk_release.asterisk_sources(release, "18.2.2", [], DIGESTS, "git")
    assert archive["checksums"] == [] and [url.rsplit("/", 2)[1] for url in archive["urls"]] == [
        "releases",
        "old-releases",
    ]
    assert pjproject["checksums"] == ["md5:0"]


def test_key_follows_from_what_decides_the_build(tmp_path):
    shutil.copytree(ROLE / "files", tmp_path / "files")
    with (tmp_path / "files/build_package.py").open("a") as recipe:
        recipe.write("# changed\n")
    told = [
        {},
        {"asterisk_package_release": "18.26.4"},
        {"asterisk_package_enable": ["pbx_lua"]},
        {"asterisk_package_enable": ["pbx_lua", "CORE-SOUNDS-ES-WAV"]},
        {"asterisk_package_disable": []},
        {"asterisk_package_debug": "-g3"},
        {"asterisk_package_extra_prerequisites": ["libfoo-dev"]},
        {"role_path": str(tmp_path)},
        {"ansible_facts": rendering.FACTS["Debian 12"]},
        {"ansible_facts": rendering.FACTS["Ubuntu 18.04"]},
        {"ansible_facts": {**rendering.FACTS["Debian 11"], "architecture": "aarch64"}},
        {"asterisk_package_extra_releases": {"18.2.0": {**TABLE["18.2.0"], "commit": "0" * 40}}},
    ]
    keys = [key(**each) for each in told]
    assert all(re.fullmatch(r"[0-9a-f]{12}", each) for each in keys)
    assert len(set(keys)) == len(told)


def test_key_does_not_follow_from_where_sources_are_fetched_or_in_what_order_options_stand():
    same = [
        {},
        {"asterisk_package_mirror": "/srv/mirror"},
        {"asterisk_package_git_url": "/srv/asterisk.git"},
        {"asterisk_package_cache": "/srv/cache"},
        {"asterisk_package_build_directory": "/srv/build"},
        {"asterisk_package_build_timeout": 60},
        {"inventory_hostname": "pbx2"},
        {"ansible_facts": {**rendering.FACTS["Debian 11"], "distribution_version": "11.11"}},
    ]
    assert len({key(**each) for each in same}) == 1
    enable = describe().template("{{ asterisk_package_enable }}")
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


def test_the_builder_is_the_first_that_needs_the_package():
    groups = {"pbx": ["p1", "p2", "p3"], "builders": ["b1"]}
    needs = {"p1": "a", "p2": "b", "p3": "a", "b1": "b"}
    hostvars = {host: {"asterisk_package_deb": package} for host, package in needs.items()}
    assert asterisk_release.elected_builder("a", groups, hostvars) == "p1"
    assert asterisk_release.elected_builder("b", groups, hostvars) == "b1"
