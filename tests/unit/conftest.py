"""Makes the checkout's collection importable, as ansible_collections.labredes.pbx, for every unit test."""

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader([str(Path(__file__).resolve().parents[2] / "collections")])
