#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of a machine that has a shell and nothing else. It says how long the kernel took until then, and waits at its prompt.
/bin/busybox mount -t proc proc /proc
read -r uptime idle < /proc/uptime
echo "shell: $uptime s"
exec /bin/busybox sh
