"""The launcher's end of the channels to its guest."""

from vm_launcher.channels.ctrl import HostChannel
from vm_launcher.channels.net import NetServer

__all__ = ["HostChannel", "NetServer"]
