"""Shows the events of an Asterisk exchange as they come, and passes them on to WebSockets."""

__version__ = "0.1.0"
