"""Run a command in its own network namespace, and record everything it tries to reach.

    unshare --user --map-root-user --net --mount python recorder.py REPORT COMMAND...

REPORT becomes a JSON list of attempts, such as ``dns collector.example`` and ``tcp 192.0.2.1:443``;
the exit code is the command's.

The namespace has only a loopback device, and a route sends every address to it. Each attempt
therefore leaves packets on it, which are refused at once because nothing listens. A packet socket
sees all of them, including those of native code. Traffic within 127.0.0.0/8 and ::1 belongs to the
servers and does not count, except for DNS queries.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_LOOPBACK = b"lo"
_DNS = 53
_SYN, _SYN_ACK = 0x02, 0x12
_ONLY_DNS = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    # Bypasses a system resolver behind a Unix socket, which a network namespace does not block.
    "/etc/nsswitch.conf": "hosts: files dns\n",
}


def main(report: Path, command: list[str]) -> int:
    """Run the command; its exit code."""
    _start_loopback()
    for family in (socket.AF_INET, socket.AF_INET6):
        _receive_every_address(family)
    _resolve_by_dns_only()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as packets:
        packets.bind(("lo", 3))
        found: set[str] = set()
        ended = threading.Event()
        reader = threading.Thread(target=_read, args=(packets, found, ended))
        reader.start()
        try:
            status = subprocess.run(command, check=False).returncode
        finally:
            ended.set()
            reader.join()
        if lost := _lost(packets):
            found.add(f"unknown: {lost} packets came faster than they could be read")
    report.write_text(json.dumps(sorted(found)), encoding="utf-8")
    return status


def _read(packets: socket.socket, found: set[str], ended: threading.Event) -> None:
    """Read packets until the command has ended and the socket is empty."""
    packets.settimeout(0.1)
    while True:
        was_over = ended.is_set()
        try:
            attempt = _attempt(packets.recv(2048))
        except TimeoutError:
            if was_over:
                return
        else:
            if attempt:
                found.add(attempt)


def _attempt(packet: bytes) -> str | None:
    """The destination of a packet; None if it is on this machine."""
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) * 4, packet[9]
        address = ipaddress.ip_address(packet[16:20])
    else:
        start, protocol = 40, packet[6]
        address = ipaddress.ip_address(packet[24:40])
    port = int.from_bytes(packet[start + 2 : start + 4], "big")
    if protocol == socket.IPPROTO_UDP:
        if port == _DNS:
            return f"dns {_asked_name(packet[start + 8 :])}"
        return None if address.is_loopback else f"udp {address}:{port}"
    opens = protocol == socket.IPPROTO_TCP and packet[start + 13] & _SYN_ACK == _SYN
    if not opens or (address.is_loopback and port != _DNS):
        return None
    return f"tcp {address}:{port}"


def _asked_name(query: bytes) -> str:
    """The first name of a DNS query: labels with their lengths, from byte 12 on (RFC 1035, 4.1)."""
    labels, place = [], 12
    while place < len(query) and query[place]:
        end = place + 1 + query[place]
        labels.append(query[place + 1 : end].decode("ascii", "replace"))
        place = end
    return ".".join(labels)


def _lost(packets: socket.socket) -> int:
    """How many packets the kernel dropped: PACKET_STATISTICS (packet(7)) since the last call."""
    return int(struct.unpack("II", packets.getsockopt(263, 6, 8))[1])


def _start_loopback() -> None:
    """SIOCSIFFLAGS with IFF_UP (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", _LOOPBACK, 1))


def _receive_every_address(family: int) -> None:
    """``ip route add local default dev lo``: RTM_NEWROUTE of type RTN_LOCAL (rtnetlink(7))."""
    table_local, by_hand, scope_host, type_local = 255, 3, 254, 2
    route = struct.pack("8BI", family, 0, 0, 0, table_local, by_hand, scope_host, type_local, 0)
    device = struct.pack("HHi", 8, 4, socket.if_nametoindex(_LOOPBACK.decode()))
    new_route, request_create_ack = 24, 0x1 | 0x400 | 0x4
    size = 16 + len(route) + len(device)
    header = struct.pack("IHHII", size, new_route, request_create_ack, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(header + route + device)
        (error,) = struct.unpack("i", kernel.recv(4096)[16:20])
    if error and family == socket.AF_INET:  # a kernel without IPv6 has no way out by it
        raise OSError(-error, "no route could be added")


def _resolve_by_dns_only() -> None:
    for name, content in _ONLY_DNS.items():
        if Path(name).exists():
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(content)
                file.flush()
                subprocess.run(["mount", "--bind", file.name, name], check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
