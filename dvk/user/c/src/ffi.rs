// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of `dvk.h`, in whose order they are, with the comments it has.
//!
//! As in C, it is the caller who answers for pointers: one that is not null points to a value of
//! its type, as long as the function runs, or with `dvk_grant` until the grant is revoked. A null
//! pointer is `EFAULT`, except where it is said to be allowed.

use core::ffi::{c_char, c_int, c_ulong, c_void};
use dvk_abi::ioctl::{
    self, Bind, Container, Copy, CopyBetween, DvsInit, EndpointInfo, Events, Exchange, Grant,
    Granted, Info, Lease, LinkAttach, LinkInfo, Migrate, MigrateEnd, Node, Notify, Privileges,
    PromoteBackup, ProxyFrames, RemoteEndpoint, Revoke, WaitBind, WaitUnbind, BIND_ADOPT,
};
use dvk_abi::Message;

fn fail(errno: c_int) -> c_int {
    // SAFETY: the location is the calling thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Makes call `opcode` with the block, if there is one.
fn call<B>(fd: c_int, opcode: u32, block: *mut B) -> c_int {
    if block.is_null() {
        return fail(libc::EFAULT);
    }
    debug_assert_eq!((opcode >> 16 & 0x3fff) as usize, size_of::<B>());
    // SAFETY: the kernel reads and writes as many bytes as the number says, which is the size of
    // the block; for memory that the block names, the C program answers.
    unsafe { libc::ioctl(fd, c_ulong::from(opcode), block) }
}

fn call_bare(fd: c_int, opcode: u32) -> c_int {
    // SAFETY: the call takes no block.
    unsafe { libc::ioctl(fd, c_ulong::from(opcode), 0) }
}

/// The value at a pointer that C gave; `None` if it is null.
fn get<T: core::marker::Copy>(pointer: *const T) -> Option<T> {
    // SAFETY: by the contract of the functions of this module.
    (!pointer.is_null()).then(|| unsafe { pointer.read_unaligned() })
}

/// Stores a value at a pointer that C gave, unless it is null.
fn put<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: by the contract of the functions of this module.
        unsafe { pointer.write_unaligned(value) };
    }
}

/// Opens for reading and writing or, where that is not permitted, for reading.
fn open(path: *const c_char) -> c_int {
    for access in [libc::O_RDWR, libc::O_RDONLY] {
        // SAFETY: the path is a string by the contract of the functions of this module; the kernel
        // refuses a null pointer.
        let fd = unsafe { libc::open(path, access | libc::O_CLOEXEC) };
        let error = std::io::Error::last_os_error().raw_os_error();
        if fd >= 0 || !matches!(error, Some(libc::EACCES | libc::EROFS)) {
            return fd;
        }
    }
    -1
}

/// Opens the device of a container, /dev/dvk-dcN, close-on-exec. Returns a file descriptor, to be
/// closed with close(2), which unbinds.
#[no_mangle]
extern "C" fn dvk_open(container: u32) -> c_int {
    let path = format!("/dev/dvk-dc{container}\0");
    open(path.as_ptr().cast())
}

/// Opens a device of the DVK wherever it is mounted, close-on-exec.
#[no_mangle]
extern "C" fn dvk_open_at(path: *const c_char) -> c_int {
    open(path)
}

/// Binds the file to a slot: one below DVK_SERVER_SLOTS with DVK_BIND_SERVER, or DVK_SLOT_ANY.
/// `endpoint` receives the endpoint; with DVK_BIND_ADOPT it gives the one to be adopted.
#[no_mangle]
extern "C" fn dvk_bind(fd: c_int, slot: u32, flags: u32, endpoint: *mut u64) -> c_int {
    let given = if flags & BIND_ADOPT == 0 { Some(0) } else { get(endpoint) };
    let Some(given) = given else { return fail(libc::EFAULT) };
    let mut block = Bind { slot, flags, endpoint: given };
    let result = call(fd, ioctl::BIND, &mut block);
    if result == 0 {
        put(endpoint, block.endpoint);
    }
    result
}

/// Ceases to be an endpoint and keeps the file open.
#[no_mangle]
extern "C" fn dvk_unbind(fd: c_int) -> c_int {
    call_bare(fd, ioctl::UNBIND)
}

fn sending(to: u64, message: *const Message, timeout_ns: i64) -> Option<Exchange> {
    let message = get(message)?;
    Some(Exchange { message, peer: to, timeout_ns, ..Exchange::default() })
}

fn received(result: c_int, block: &Exchange, message: *mut Message, how: *mut u32) -> c_int {
    if result == 0 {
        put(message, block.message);
        put(how, block.how);
    }
    result
}

/// Sends a message and waits until it is received, at most `timeout_ns` nanoseconds; 0 is not to
/// wait at all (EAGAIN), a negative value to wait for ever. So it is for all timeouts.
#[no_mangle]
extern "C" fn dvk_send(fd: c_int, to: u64, message: *const Message, timeout_ns: i64) -> c_int {
    match sending(to, message, timeout_ns) {
        Some(mut block) => call(fd, ioctl::SEND, &mut block),
        None => fail(libc::EFAULT),
    }
}

/// Waits for a message from `from`, or from anybody with DVK_ENDPOINT_ANY. `how` receives how it
/// was sent, DVK_HOW_SEND and so on; it may be null.
#[no_mangle]
extern "C" fn dvk_receive(
    fd: c_int,
    from: u64,
    message: *mut Message,
    how: *mut u32,
    timeout_ns: i64,
) -> c_int {
    if message.is_null() {
        return fail(libc::EFAULT);
    }
    let mut block = Exchange { from, timeout_ns, ..Exchange::default() };
    let result = call(fd, ioctl::RECEIVE, &mut block);
    received(result, &block, message, how)
}

/// As dvk_receive, but takes only messages sent by dvk_sendrec.
#[no_mangle]
extern "C" fn dvk_receive_request(
    fd: c_int,
    from: u64,
    message: *mut Message,
    timeout_ns: i64,
) -> c_int {
    if message.is_null() {
        return fail(libc::EFAULT);
    }
    let mut block = Exchange { from, timeout_ns, ..Exchange::default() };
    let result = call(fd, ioctl::RECEIVE_REQUEST, &mut block);
    received(result, &block, message, core::ptr::null_mut())
}

/// Sends a message and waits for its reply, which replaces it.
#[no_mangle]
extern "C" fn dvk_sendrec(fd: c_int, to: u64, message: *mut Message, timeout_ns: i64) -> c_int {
    let Some(mut block) = sending(to, message, timeout_ns) else { return fail(libc::EFAULT) };
    let result = call(fd, ioctl::SENDREC, &mut block);
    received(result, &block, message, core::ptr::null_mut())
}

/// Answers `to`, whose request was received. Never waits; EAGAIN if nobody waits for it.
#[no_mangle]
extern "C" fn dvk_reply(fd: c_int, to: u64, message: *const Message) -> c_int {
    match sending(to, message, 0) {
        Some(mut block) => call(fd, ioctl::REPLY, &mut block),
        None => fail(libc::EFAULT),
    }
}

/// dvk_reply to `to` and then dvk_receive from `from`, in one call. The message that is received
/// replaces the reply. If the reply fails, nothing is received.
#[no_mangle]
extern "C" fn dvk_reply_receive(
    fd: c_int,
    to: u64,
    message: *mut Message,
    from: u64,
    how: *mut u32,
    timeout_ns: i64,
) -> c_int {
    let Some(block) = sending(to, message, timeout_ns) else { return fail(libc::EFAULT) };
    let mut block = Exchange { from, ..block };
    let result = call(fd, ioctl::REPLY_RECEIVE, &mut block);
    received(result, &block, message, how)
}

/// Sets notification bits, not 0, at `to`. Never waits.
#[no_mangle]
extern "C" fn dvk_notify(fd: c_int, to: u64, bits: u64) -> c_int {
    call(fd, ioctl::NOTIFY, &mut Notify { peer: to, bits })
}

/// The bits of a received notification; 0 if the message is none.
#[no_mangle]
extern "C" fn dvk_notify_bits(message: *const Message) -> u64 {
    get(message).and_then(|message| message.notify_bits()).unwrap_or(0)
}

/// Waits until somebody is bound to a slot, on whatever node; `endpoint` receives who, and may be
/// null.
#[no_mangle]
extern "C" fn dvk_wait_bind(fd: c_int, slot: u32, endpoint: *mut u64, timeout_ns: i64) -> c_int {
    let mut block = WaitBind { slot, timeout_ns, ..WaitBind::default() };
    let result = call(fd, ioctl::WAIT_BIND, &mut block);
    if result == 0 {
        put(endpoint, block.endpoint);
    }
    result
}

/// Waits until an endpoint is dead.
#[no_mangle]
extern "C" fn dvk_wait_unbind(fd: c_int, endpoint: u64, timeout_ns: i64) -> c_int {
    call(fd, ioctl::WAIT_UNBIND, &mut WaitUnbind { endpoint, timeout_ns })
}

/// What the kernel knows of this file and its endpoint.
#[no_mangle]
extern "C" fn dvk_get_info(fd: c_int, info: *mut Info) -> c_int {
    call(fd, ioctl::GET_INFO, info)
}

/// Says what an endpoint may do.
#[no_mangle]
extern "C" fn dvk_set_privileges(fd: c_int, privileges: *const Privileges) -> c_int {
    call(fd, ioctl::SET_PRIVILEGES, privileges.cast_mut())
}

/// What the endpoint of this file may do.
#[no_mangle]
extern "C" fn dvk_get_privileges(fd: c_int, privileges: *mut Privileges) -> c_int {
    call(fd, ioctl::GET_PRIVILEGES, privileges)
}

/// Lends `len` bytes at `address` to `to`, or to everybody with DVK_ENDPOINT_ANY. `access` is
/// DVK_GRANT_READ, DVK_GRANT_WRITE or both. `grant` receives the id that messages carry. Until
/// dvk_revoke, others read and write the memory at any moment.
#[no_mangle]
extern "C" fn dvk_grant(
    fd: c_int,
    address: *mut c_void,
    len: usize,
    to: u64,
    access: u32,
    grant: *mut u64,
) -> c_int {
    if grant.is_null() {
        return fail(libc::EFAULT);
    }
    let address = address.expose_provenance() as u64;
    let mut block = Grant { address, len: len as u64, to, access, ..Grant::default() };
    let result = call(fd, ioctl::GRANT, &mut block);
    if result == 0 {
        put(grant, block.grant);
    }
    result
}

/// Ends a grant. When it returns, nobody touches the memory any more.
#[no_mangle]
extern "C" fn dvk_revoke(fd: c_int, grant: u64) -> c_int {
    call(fd, ioctl::REVOKE, &mut Revoke { grant })
}

/// What a copy call gives: how many bytes arrived, also if it failed.
fn copy(
    fd: c_int,
    opcode: u32,
    granted: *const Granted,
    address: usize,
    len: usize,
    copied: *mut u64,
    timeout_ns: i64,
) -> c_int {
    let Some(granted) = get(granted) else { return fail(libc::EFAULT) };
    let mut block =
        Copy { granted, address: address as u64, len: len as u64, timeout_ns, copied: 0 };
    let result = call(fd, opcode, &mut block);
    put(copied, block.copied);
    result
}

/// Copies `len` bytes out of what a peer granted. `copied` receives how many arrived, also if the
/// call fails; it may be null.
#[no_mangle]
extern "C" fn dvk_copy_from(
    fd: c_int,
    from: *const Granted,
    into: *mut c_void,
    len: usize,
    copied: *mut u64,
    timeout_ns: i64,
) -> c_int {
    copy(fd, ioctl::COPY_FROM, from, into.expose_provenance(), len, copied, timeout_ns)
}

/// Copies `len` bytes into what a peer granted.
#[no_mangle]
extern "C" fn dvk_copy_to(
    fd: c_int,
    to: *const Granted,
    from: *const c_void,
    len: usize,
    copied: *mut u64,
    timeout_ns: i64,
) -> c_int {
    copy(fd, ioctl::COPY_TO, to, from.expose_provenance(), len, copied, timeout_ns)
}

/// Copies `len` bytes out of what one peer granted into what another did.
#[no_mangle]
extern "C" fn dvk_copy_between(
    fd: c_int,
    from: *const Granted,
    to: *const Granted,
    len: u64,
    copied: *mut u64,
    timeout_ns: i64,
) -> c_int {
    let (Some(source), Some(destination)) = (get(from), get(to)) else {
        return fail(libc::EFAULT);
    };
    let mut block = CopyBetween { source, destination, len, timeout_ns, copied: 0 };
    let result = call(fd, ioctl::COPY_BETWEEN, &mut block);
    put(copied, block.copied);
    result
}

macro_rules! control_calls {
    ($($(#[$doc:meta])* fn $name:ident($block:ty) = $opcode:ident;)*) => {$(
        $(#[$doc])*
        #[no_mangle]
        extern "C" fn $name(control: c_int, block: *mut $block) -> c_int {
            call(control, ioctl::$opcode, block)
        }
    )*};
}

/// Leaves the DVS. This and the following are calls of the control device, /dev/dvk, and need
/// CAP_SYS_ADMIN in the initial user namespace. What the blocks mean is said at their structures.
#[no_mangle]
extern "C" fn dvk_dvs_end(control: c_int) -> c_int {
    call_bare(control, ioctl::DVS_END)
}

control_calls! {
    /// Makes this node part of a DVS.
    fn dvk_dvs_init(DvsInit) = DVS_INIT;
    /// A peer node runs.
    fn dvk_node_up(Node) = NODE_UP;
    /// A peer node is gone.
    fn dvk_node_down(Node) = NODE_DOWN;
    /// Makes a container and its device.
    fn dvk_dc_create(Container) = DC_CREATE;
    /// Destroys a container.
    fn dvk_dc_destroy(Container) = DC_DESTROY;
    /// A container spans a node, which holds a lease of slots in it.
    fn dvk_dc_add_node(Lease) = DC_ADD_NODE;
    /// A container no longer spans a node.
    fn dvk_dc_remove_node(Lease) = DC_REMOVE_NODE;
    /// Carries the traffic with a node over a transport.
    fn dvk_link_attach(LinkAttach) = LINK_ATTACH;
    /// Stops carrying traffic with a node.
    fn dvk_link_detach(LinkAttach) = LINK_DETACH;
    /// State and counters of the link to a node.
    fn dvk_link_info(LinkInfo) = LINK_INFO;
    /// An endpoint lives on another node.
    fn dvk_endpoint_set_remote(RemoteEndpoint) = ENDPOINT_SET_REMOTE;
    /// Freezes an endpoint that is to move to another node.
    fn dvk_migrate_start(Migrate) = MIGRATE_START;
    /// The endpoint lives on its new node from here on.
    fn dvk_migrate_commit(MigrateEnd) = MIGRATE_COMMIT;
    /// The endpoint stays where it was.
    fn dvk_migrate_rollback(MigrateEnd) = MIGRATE_ROLLBACK;
    /// The backup of an endpoint takes its place.
    fn dvk_promote_backup(PromoteBackup) = PROMOTE_BACKUP;
    /// What this node knows of the endpoints of a container.
    fn dvk_endpoint_info(EndpointInfo) = ENDPOINT_INFO;
    /// Takes what happened on this node since the last time, or waits for it.
    fn dvk_events(Events) = EVENTS;
    /// Takes frames that a link has for its peer, or waits for one: the proxy's part.
    fn dvk_proxy_get(ProxyFrames) = PROXY_GET;
    /// Gives a link frames that its peer sent.
    fn dvk_proxy_put(ProxyFrames) = PROXY_PUT;
}
