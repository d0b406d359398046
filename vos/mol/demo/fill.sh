# SPDX-License-Identifier: MIT OR Apache-2.0
# Run by the shell of a container of MoL; $1 is the first page. Puts the site on the file server's file system.
set -eu -o pipefail
put() { mol-fs put --server files "$1" >&2; }

echo "waiting for a file server" >&2
tries=0
until mol-fs list --server files / >/dev/null 2>&1; do
    tries=$((tries + 1))
    test $tries -lt 60 || { echo "no file server has come within $tries tries" >&2; exit 1; }
    sleep 1
done

echo "writing index.html" >&2
printf '%s' "$1" | put /index.html

# Hashed on its way: there is no room for it in the container.
echo "writing large.bin" >&2
rm -f /tmp/hashed /tmp/hash
mkfifo /tmp/hashed
sha256sum < /tmp/hashed > /tmp/hash &
dd if=/dev/urandom bs=1M count=100 2>/dev/null | tee /tmp/hashed | put /large.bin
wait

echo "writing large.bin.sha256" >&2
read -r hash _ < /tmp/hash
echo "$hash  large.bin" | put /large.bin.sha256

# Until both have everything, the disk does not stand the loss of the node that has.
echo "waiting for both replicas to be in step" >&2
tries=0
until test "$(mol-vdd show --group disks | grep -c ': in step')" = 2; do
    tries=$((tries + 1))
    test $tries -lt 300 || { mol-vdd show --group disks >&2; exit 1; }
    sleep 1
done
