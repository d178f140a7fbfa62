from vm_launcher.drivers.qemu.driver import QemuDriver

__all__ = ["QemuDriver"]
