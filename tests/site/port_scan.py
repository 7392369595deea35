#!/usr/bin/env python3
"""Scans every TCP port of each address given and prints as JSON which are open and which refuse; others are silent.

It needs Python's standard library only, so that it runs on any host.
"""

import errno
import json
import resource
import select
import socket
import sys
import time

# Any other result is a fault of the scan, and ends it.
WORDS = {0: "open", errno.ECONNREFUSED: "refused"}
SECONDS = 0.5  # well within the second after which the kernel asks again


def scan(addresses, ports, found):
    """Scan some ports of all addresses at once."""
    poller, waiting = select.poll(), {}
    for address in addresses:
        for port in ports:
            family, kind, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            tried = socket.socket(family, kind)
            tried.setblocking(False)
            code = tried.connect_ex(where)
            if code == errno.EINPROGRESS:
                waiting[tried.fileno()] = tried, address, port
                poller.register(tried, select.POLLOUT)
            else:
                found[address][WORDS[code]].append(port)
                tried.close()
    end = time.monotonic() + SECONDS
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poller.poll(left * 1000):
            tried, address, port = waiting.pop(number)
            code = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            found[address][WORDS[code]].append(port)
            poller.unregister(tried)
            tried.close()
    for tried, _, _ in waiting.values():
        tried.close()


def main(addresses):
    """Scan all ports, as many at once as files may be open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(most, 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = {address: {"open": [], "refused": []} for address in addresses}
    step = (most - 64) // len(addresses)
    for first in range(1, 65536, step):
        scan(addresses, range(first, min(first + step, 65536)), found)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
