-- SPDX-License-Identifier: MIT OR Apache-2.0
--
-- A dissector of the DVK's protocol for Wireshark and tshark 4.0 and later. How to install it and what its filters are is said in
-- README.md beside it; the protocol is described in docs/wire-protocol.md and defined in dvk/abi/src/wire.
--
-- First come the tables, to be held against the Rust code: what a frame and a record are made of, and what kinds of them there are.
-- What they mean follows: which values no sender writes, what a person reads of a record, how records are put together. The tests are
-- in xtask/src/dissector, and fail when dvk/abi knows what is not in the tables.

local dvk = Proto("dvk", "DVK Frame")

-- ---------------------------------------------------------------------------------------------------------------------------------
-- Numbers of dvk/abi
-- ---------------------------------------------------------------------------------------------------------------------------------

local ETHERTYPE = 0x88b5                -- wire/mod.rs
local MAGIC = 0x5644                    -- wire/frame.rs
local HEADER_BYTES = 64
local MIN_PAYLOAD_BYTES = 512
local MAX_PAYLOAD_BYTES = 16384
local MAX_RECORD_BYTES = 65536 + 512
local CHUNK_HEAD_BYTES = 2
local GREETING_BYTES = 8
local GREETING_VERSION = 1
local VERSIONS = { min = 1, max = 2 }
-- From here on data frames ask for acknowledgements.
local VERSION_ASKING = 2
local RECORD_HEAD_BYTES = 24            -- wire/record.rs
local MAX_PART_BYTES = 256 * 1024       -- wire/transfer.rs
local SLOTS = 65536                     -- limits.rs
local MAY_ALL = 0x3ff                   -- ioctl.rs

-- wire/frame.rs, `Kind`
local FRAME_KINDS = {
    [1] = "hello",
    [2] = "hello-ack",
    [3] = "data",
    [4] = "ack",
    [5] = "keepalive",
    [6] = "reset",
}
local HELLO, HELLO_ACK, DATA = 1, 2, 3

-- errno.rs, `Errno`
local ERRORS = {
    [1] = "EPERM",
    [3] = "ESRCH",
    [4] = "EINTR",
    [11] = "EAGAIN",
    [12] = "ENOMEM",
    [13] = "EACCES",
    [14] = "EFAULT",
    [16] = "EBUSY",
    [17] = "EEXIST",
    [19] = "ENODEV",
    [22] = "EINVAL",
    [25] = "ENOTTY",
    [28] = "ENOSPC",
    [35] = "EDEADLK",
    [78] = "EREMCHG",
    [90] = "EMSGSIZE",
    [107] = "ENOTCONN",
    [110] = "ETIMEDOUT",
    [113] = "EHOSTUNREACH",
    [116] = "ESTALE",
    [130] = "EOWNERDEAD",
}

-- ---------------------------------------------------------------------------------------------------------------------------------
-- Fields: name of the filter after `dvk.`, type, title. Every number is little-endian. What has a mask shares its bytes with
-- the entry before it; the others follow each other without a gap.
-- ---------------------------------------------------------------------------------------------------------------------------------

local DEC, HEX = base.DEC, base.HEX

-- wire/frame.rs, `Header`
local HEADER = {
    { "magic",           "u16", "Magic", HEX },
    { "version",         "u8",  "Version" },
    { "kind",            "u8",  "Kind", values = FRAME_KINDS },
    { "flags",           "u8",  "Flags", HEX },
    { "flags.echo",      "u8",  "The echo is valid", mask = 0x01 },
    { "flags.asks",      "u8",  "Asks for an acknowledgement", mask = 0x02 },
    { "flags.reserved",  "u8",  "Reserved", HEX, mask = 0xfc },
    { "zero1",           "u8",  "Zero", HEX },
    { "length",          "u16", "Payload length" },
    { "cluster",         "u64", "Cluster", HEX },
    { "src.node",        "u16", "Source node" },
    { "dst.node",        "u16", "Destination node" },
    { "src.incarnation", "u32", "Source incarnation" },
    { "dst.incarnation", "u32", "Destination incarnation" },
    { "src.stream",      "u32", "Source stream" },
    { "dst.stream",      "u32", "Destination stream" },
    { "sequence",        "u32", "Sequence" },
    { "ack",             "u32", "Acknowledgement" },
    { "timestamp",       "u32", "Timestamp (us)" },
    { "selective",       "u64", "Selective acknowledgement", HEX },
    { "echo",            "u32", "Echo (us)" },
    { "window",          "u16", "Window" },
    { "zero2",           "u16", "Zero", HEX },
}

-- wire/frame.rs, `Greeting`
local GREETING = {
    { "greeting.oldest",   "u8",    "Oldest version" },
    { "greeting.newest",   "u8",    "Newest version" },
    { "greeting.payload",  "u16",   "Longest payload" },
    { "greeting.reserved", "u32",   "Reserved", HEX },
    { "greeting.appended", "bytes", "Appended by a later version" },
}

-- wire/frame.rs, `Chunk`
local CHUNK = {
    { "chunk.head",   "u16",   "Head", HEX },
    { "chunk.length", "u16",   "Length", mask = 0x3fff },
    { "chunk.first",  "u16",   "First of its record", mask = 0x4000 },
    { "chunk.last",   "u16",   "Last of its record", mask = 0x8000 },
    { "chunk.data",   "bytes", "Data" },
}

-- wire/record.rs and wire/transfer.rs, what every record begins with
local RECORD_HEAD = {
    { "record.kind",      "u8",       "Kind" },
    { "record.zero",      "u8",       "Zero", HEX },
    { "record.container", "u16",      "Container" },
    { "record.call",      "u32",      "Call" },
    { "record.from",      "endpoint", "From" },
    { "record.to",        "endpoint", "To" },
}

-- message.rs, `Message`
local MESSAGE = {
    { "message.source",  "reserved or endpoint", "Source, as the sender left it" },
    { "message.kind",    "u32", "Kind", HEX, values = { [0xffff0001] = "notify" } },
    { "message.flags",   "u32", "Flags", HEX },
    { "message.payload", "bytes", "Payload", bytes = 48 },
}

local BITS = { "record.bits", "u64", "Bits", HEX }
local ERROR = { "record.error", "u8", "Error", values = ERRORS }
-- A part of a copy: `len` and `rest`, then a `Place`.
local PART = {
    { "copy.length",      "u32", "Length of the part" },
    { "copy.rest",        "u64", "Rest of the copy", DEC },
    { "copy.grant",       "u64", "Grant", HEX },
    { "copy.offset",      "u64", "Offset in the grant", DEC },
}
local RECEIVER = {
    { "copy.receiver",        "endpoint", "Receiving endpoint" },
    { "copy.receiver_grant",  "u64", "Its grant", HEX },
    { "copy.receiver_offset", "u64", "Offset in its grant", DEC },
}
local DATA_REST = {
    { "copy.part_offset", "u32", "Offset in the part" },
    { "copy.data",        "bytes", "Data" },
}
-- ioctl.rs, `Privileges` and the `MAY_` bits
local PRIVILEGES = {
    { "privileges.servers", "u64", "Servers it may reach", HEX },
    { "privileges.notify",  "u64", "Bits it may set by notify", HEX },
    { "privileges.calls",   "u32", "Calls it may make", HEX },
    { "privileges.calls.send",           "u32", "Send",           mask = 0x001 },
    { "privileges.calls.receive",        "u32", "Receive",        mask = 0x002 },
    { "privileges.calls.request",        "u32", "Request",        mask = 0x004 },
    { "privileges.calls.reply",          "u32", "Reply",          mask = 0x008 },
    { "privileges.calls.notify",         "u32", "Notify",         mask = 0x010 },
    { "privileges.calls.grant",          "u32", "Grant",          mask = 0x020 },
    { "privileges.calls.copy",           "u32", "Copy",           mask = 0x040 },
    { "privileges.calls.wait",           "u32", "Wait",           mask = 0x080 },
    { "privileges.calls.reach_others",   "u32", "Reach others",   mask = 0x100 },
    { "privileges.calls.set_privileges", "u32", "Set privileges", mask = 0x200 },
}

local function list(...)
    local all = {}
    for _, part in ipairs({ ... }) do
        if type(part[1]) == "string" then
            part = { part }
        end
        for _, entry in ipairs(part) do
            all[#all + 1] = entry
        end
    end
    return all
end

-- wire/record.rs and wire/transfer.rs, the modules `kind`: what follows the head
local RECORDS = {
    [1]  = { "send", MESSAGE },
    [2]  = { "request", MESSAGE },
    [3]  = { "accepted", {} },
    [4]  = { "reply", MESSAGE },
    [5]  = { "failed", list(ERROR) },
    [6]  = { "cancel", {} },
    [7]  = { "cancelled", {} },
    [8]  = { "watch", {} },
    [9]  = { "notify", list(BITS) },
    [10] = { "returned", list(BITS, { "record.epoch", "u32", "Epoch of the move" }) },
    [11] = { "await-bind", {} },
    [12] = { "bound", {} },
    [13] = { "privilege", PRIVILEGES },
    [14] = { "fence", {} },
    [15] = { "fenced", {} },
    [20] = { "copy-from", PART },
    [21] = { "copy-to", PART },
    [22] = { "copy-between", list(PART, RECEIVER) },
    [23] = { "open", {} },
    [24] = { "supplied", DATA_REST },
    [25] = { "stored", DATA_REST },
    [26] = { "stop", {} },
    [27] = { "done", list({ "copy.copied", "u32", "Bytes copied" }, ERROR) },
}
RECORD_HEAD[1].values = {}
for kind, record in pairs(RECORDS) do
    RECORD_HEAD[1].values[kind] = record[1]
end

-- What the dissector adds to what is on the wire.
local NUMBER_OF = base.NONE
local DERIVED = {
    selective = ProtoField.uint32("dvk.selective.sequence", "Has arrived"),
    padding = ProtoField.bytes("dvk.padding", "Padding"),
    undecoded = ProtoField.bytes("dvk.undecoded", "Not decoded"),
    chunk = ProtoField.none("dvk.chunk", "Chunk"),
    record = ProtoField.none("dvk.record", "Record"),
    message = ProtoField.none("dvk.message", "Message"),
    retransmission = ProtoField.framenum("dvk.retransmission_of", "First sent in", NUMBER_OF, frametype.RETRANS_PREV),
    duplicate = ProtoField.framenum("dvk.duplicate_of", "First seen in", NUMBER_OF, frametype.DUP_ACK),
    reassembled = ProtoField.framenum("dvk.record.reassembled_in", "Record reassembled in", NUMBER_OF),
    part = ProtoField.framenum("dvk.record.part", "Part in", NUMBER_OF),
}

local EXPERTS = {
    malformed = ProtoExpert.new("dvk.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR),
    unknown = ProtoExpert.new("dvk.unknown_kind", "Unknown kind", expert.group.UNDECODED, expert.severity.WARN),
    version = ProtoExpert.new("dvk.unknown_version", "Unknown version", expert.group.UNDECODED, expert.severity.WARN),
    cut = ProtoExpert.new("dvk.cut", "Captured in part", expert.group.UNDECODED, expert.severity.NOTE),
    retransmission = ProtoExpert.new("dvk.retransmission", "Retransmission", expert.group.SEQUENCE, expert.severity.NOTE),
    duplicate = ProtoExpert.new("dvk.duplicate", "Duplicate", expert.group.SEQUENCE, expert.severity.NOTE),
}

-- ---------------------------------------------------------------------------------------------------------------------------------
-- From tables to fields
-- ---------------------------------------------------------------------------------------------------------------------------------

local BYTES = { u8 = 1, u16 = 2, u32 = 4, u64 = 8, endpoint = 8, ["reserved or endpoint"] = 8 }
local MAKE = { u8 = ProtoField.uint8, u16 = ProtoField.uint16, u32 = ProtoField.uint32, u64 = ProtoField.uint64 }

-- By name, so that lists may share entries.
local fields = {}

local function define(entries)
    for _, entry in ipairs(entries) do
        local name, kind, title, shown = entry[1], entry[2], entry[3], entry[4]
        local filter = "dvk." .. name
        if fields[name] then
            -- Defined with another list.
        elseif kind == "bytes" then
            fields[name] = ProtoField.bytes(filter, title)
        elseif BYTES[kind] == 8 and kind ~= "u64" then
            fields[name] = ProtoField.string(filter, title)
            fields[name .. ".slot"] = ProtoField.uint32(filter .. ".slot", "Slot")
            fields[name .. ".generation"] = ProtoField.uint32(filter .. ".generation", "Generation")
        elseif entry.mask and not shown and name ~= "chunk.length" then
            fields[name] = ProtoField.bool(filter, title, 8 * BYTES[kind], nil, entry.mask)
        else
            fields[name] = MAKE[kind](filter, title, shown or DEC, entry.values, entry.mask)
        end
    end
end

for _, entries in ipairs({ HEADER, GREETING, CHUNK, RECORD_HEAD, MESSAGE }) do
    define(entries)
end
for _, record in pairs(RECORDS) do
    define(record[2])
end

dvk.fields = {}
for _, set in ipairs({ fields, DERIVED }) do
    for _, field in pairs(set) do
        table.insert(dvk.fields, field)
    end
end
dvk.experts = {}
for _, info in pairs(EXPERTS) do
    table.insert(dvk.experts, info)
end

-- The bytes that a list takes at least: all but an open end.
local function bytes_of(entries)
    local bytes, open = 0, false
    for _, entry in ipairs(entries) do
        if entry[2] == "bytes" and not entry.bytes then
            open = true
        elseif not entry.mask then
            bytes = bytes + (entry.bytes or BYTES[entry[2]])
        end
    end
    return bytes, open
end

-- endpoint.rs, `Display`
local RESERVED = { [0xffffffff] = "any", [0xfffffffe] = "none", [0xfffffffd] = "self" }

local function endpoint_at(range)
    local slot, generation = range(0, 4):le_uint(), range(4, 4):le_uint()
    local text = generation == 0 and RESERVED[slot] or string.format("%u.%u", slot, generation)
    return { slot = slot, generation = generation, text = text, is_name = generation ~= 0 and slot < SLOTS }
end

-- 64 bits do not fit into a number of every Lua.
local function u64_at(range)
    local low, high = range(0, 4):le_uint(), range(4, 4):le_uint()
    return {
        is_zero = low == 0 and high == 0,
        is_below = function(number) return high == 0 and low < number end,
        decimal = tostring(range(0, 8):le_uint64()),
        hexadecimal = high == 0 and string.format("0x%x", low) or string.format("0x%x%08x", high, low),
    }
end

-- Adds the fields of a list, which `range` is long enough for, to `tree`, and gives their values by name.
local function add_fields(tree, range, entries)
    local values, at, shared = {}, 0, nil
    for _, entry in ipairs(entries) do
        local name, kind = entry[1], entry[2]
        local field = fields[name]
        if entry.mask then
            shared.tree:add_le(field, shared.range)
        elseif kind == "bytes" then
            local bytes = entry.bytes or range:len() - at
            if bytes > 0 then
                tree:add(field, range(at, bytes))
            end
            at = at + bytes
        else
            local place = range(at, BYTES[kind])
            if kind == "u64" then
                values[name] = u64_at(place)
                shared = { tree = tree:add_le(field, place), range = place }
            elseif BYTES[kind] == 8 then
                local endpoint = endpoint_at(place)
                values[name] = endpoint
                local below = tree:add(field, place, endpoint.text)
                below:add_le(fields[name .. ".slot"], place(0, 4))
                below:add_le(fields[name .. ".generation"], place(4, 4))
            else
                values[name] = place:le_uint()
                shared = { tree = tree:add_le(field, place), range = place }
            end
            at = at + BYTES[kind]
        end
    end
    return values
end

-- ---------------------------------------------------------------------------------------------------------------------------------
-- Records
-- ---------------------------------------------------------------------------------------------------------------------------------

-- What no sender writes in the rest of a record (`Record::decode`, `CopyRecord::decode`), by kind.
local function part_fault(most)
    return function(values)
        local length = values["copy.length"]
        if length > most then
            return "a part of a copy is too long"
        elseif values["copy.rest"].is_below(length) then
            return "a part of a copy is longer than the rest of it"
        end
    end
end
local FAULTS = {
    failed = function(values)
        return not ERRORS[values["record.error"]] and "no error has this number"
    end,
    notify = function(values)
        return values["record.bits"].is_zero and "a notification has no bits"
            or values["record.call"] ~= 0 and "a notification has a call"
    end,
    returned = function(values)
        local call, bits = values["record.call"] ~= 0, not values["record.bits"].is_zero
        return call == bits and "neither or both of a notification and a call came back"
    end,
    privilege = function(values)
        return values["privileges.calls"] > MAY_ALL and "a privilege is for an unknown call"
    end,
    ["copy-from"] = part_fault(MAX_PART_BYTES),
    ["copy-to"] = part_fault(MAX_PART_BYTES),
    ["copy-between"] = function(values)
        return part_fault(2 ^ 32)(values)
            or not values["copy.receiver"].is_name and "the receiving endpoint cannot be one"
    end,
    done = function(values)
        local error = values["record.error"]
        return error ~= 0 and not ERRORS[error] and "no error has this number"
    end,
}

-- What a person reads of the rest of a record, by kind.
local function part_text(values)
    return string.format(
        "%u of %s bytes, grant %s at %s",
        values["copy.length"],
        values["copy.rest"].decimal,
        values["copy.grant"].hexadecimal,
        values["copy.offset"].decimal
    )
end
local function data_text(values)
    return string.format("%u bytes at %u", values.bytes, values["copy.part_offset"])
end
local TEXTS = {
    failed = function(values) return ERRORS[values["record.error"]] end,
    notify = function(values) return "bits " .. values["record.bits"].hexadecimal end,
    returned = function(values)
        local epoch = string.format("epoch %u", values["record.epoch"])
        local bits = values["record.bits"]
        return bits.is_zero and epoch or "bits " .. bits.hexadecimal .. ", " .. epoch
    end,
    privilege = function(values) return string.format("calls 0x%x", values["privileges.calls"]) end,
    ["copy-from"] = part_text,
    ["copy-to"] = part_text,
    ["copy-between"] = function(values) return part_text(values) .. ", to " .. values["copy.receiver"].text end,
    supplied = data_text,
    stored = data_text,
    done = function(values)
        return string.format("%u bytes", values["copy.copied"])
            .. (ERRORS[values["record.error"]] and ", " .. ERRORS[values["record.error"]] or "")
    end,
}

-- Marks `tree` and gives what the list of packets says of the record.
local function refuse(tree, info, text)
    tree:add_proto_expert_info(info, text)
    return "[" .. text .. "]"
end

-- Shows the record that `range` is, and gives what the list of packets says of it.
local function show_record(parent, range)
    local tree = parent:add(DERIVED.record, range)
    if range:len() < RECORD_HEAD_BYTES then
        tree:add(DERIVED.undecoded, range)
        return refuse(tree, EXPERTS.malformed, "a record is shorter than its head")
    end
    local values = add_fields(tree, range(0, RECORD_HEAD_BYTES), RECORD_HEAD)
    local from, to = values["record.from"], values["record.to"]
    local record = RECORDS[values["record.kind"]]
    local rest_bytes = range:len() - RECORD_HEAD_BYTES
    local function show_undecoded()
        if rest_bytes > 0 then
            tree:add(DERIVED.undecoded, range(RECORD_HEAD_BYTES))
        end
    end
    if not record then
        show_undecoded()
        return refuse(tree, EXPERTS.unknown, string.format("record of unknown kind %u", values["record.kind"]))
    end
    local name, rest = record[1], record[2]
    local wanted, open = bytes_of(rest)
    if rest_bytes < wanted or rest_bytes > wanted and not open then
        show_undecoded()
        return refuse(tree, EXPERTS.malformed, name .. " record of a wrong length")
    end
    values.bytes = rest_bytes - wanted
    if rest_bytes > 0 then
        local place = range(RECORD_HEAD_BYTES)
        local below = rest == MESSAGE and tree:add(DERIVED.message, place) or tree
        for key, value in pairs(add_fields(below, place, rest)) do
            values[key] = value
        end
    end
    local fault = values["record.zero"] ~= 0 and "a reserved byte is not 0"
        or not from.is_name and "the endpoint it is from cannot be one"
        or not to.is_name and "the endpoint it is to cannot be one"
        or FAULTS[name] and FAULTS[name](values)
    if fault then
        return refuse(tree, EXPERTS.malformed, name .. " record: " .. fault)
    end
    local text = string.format("%s dc%u %s -> %s", name, values["record.container"], from.text, to.text)
    if values["record.call"] ~= 0 then
        text = text .. string.format(" call %u", values["record.call"])
    end
    if TEXTS[name] then
        text = text .. ": " .. TEXTS[name](values)
    end
    tree:append_text(": " .. text)
    return text
end

-- ---------------------------------------------------------------------------------------------------------------------------------
-- Streams: what frames that came before or after one make of it
-- ---------------------------------------------------------------------------------------------------------------------------------

-- For each direction of each life of a link, its data frames by sequence. A frame has the number of its packet, its
-- timestamp, its `head` (the piece that continues a record of earlier frames) and its `tail` (the piece that later frames
-- continue); both are the same piece if the whole frame is the middle of a record. A piece has its `bytes` until it knows
-- its `record`.
local streams = {}
-- What was found out about each packet when it was first seen, so that it is the same whenever it is looked at again.
local memory = {}

function dvk.init()
    streams, memory = {}, {}
end

local function after(sequence)
    return (sequence + 1) % 2 ^ 32
end

local function before(sequence)
    return (sequence - 1) % 2 ^ 32
end

-- Finds the sequence of the frame in which the record begins that `sequence` continues; nil if that has not been seen.
local function beginning(stream, sequence)
    local bytes = 0
    while bytes <= MAX_RECORD_BYTES do
        sequence = before(sequence)
        local frame = stream[sequence]
        if not (frame and frame.tail) then
            return nil
        elseif frame.tail ~= frame.head then
            return sequence
        end
        bytes = bytes + frame.tail.length
    end
    return nil
end

-- Puts the record together that begins at the end of frame `sequence`, and tells all its frames. Gives what is wrong with it.
local function assemble(stream, sequence, number)
    local parts, bytes = { stream[sequence] }, stream[sequence].tail.length
    repeat
        sequence = after(sequence)
        local frame = stream[sequence]
        if not (frame and frame.head) then
            return nil
        end
        parts[#parts + 1] = frame
        bytes = bytes + frame.head.length
        if bytes > MAX_RECORD_BYTES then
            return "a record is longer than any may be"
        end
    until frame.head.last
    local record = { number = number, bytes = ByteArray.new(), numbers = {} }
    for index, frame in ipairs(parts) do
        local piece = index == 1 and frame.tail or frame.head
        record.bytes:append(piece.bytes)
        record.numbers[index] = frame.number
        piece.bytes, piece.record = nil, record
    end
    return nil
end

-- The bytes of a piece, which may be in several chunks.
local function bytes_in(piece)
    local bytes = ByteArray.new()
    for _, range in ipairs(piece.ranges) do
        bytes:append(range:bytes())
    end
    return bytes
end

-- What of a piece may outlive the look at its packet.
local function keep(piece)
    local bytes = bytes_in(piece)
    return { bytes = bytes, length = bytes:len(), last = piece.last }
end

-- Takes a data frame that was not seen before into its stream. `pieces` are its parts of records, in order.
local function remember(key, number, sequence, timestamp, pieces)
    local stream = streams[key] or {}
    streams[key] = stream
    local known = stream[sequence]
    if known then
        -- Who sends a frame again gives it the time of that moment; a network that repeats one does not.
        local repeated = known.timestamp == timestamp and "duplicate" or "retransmission"
        return { frame = known, repeated = repeated }
    end
    local first, last = pieces[1], pieces[#pieces]
    local frame = { number = number, timestamp = timestamp }
    frame.head = not first.first and keep(first) or nil
    frame.tail = not last.last and (frame.head and first == last and frame.head or keep(last)) or nil
    stream[sequence] = frame
    local previous, next = stream[before(sequence)], stream[after(sequence)]
    local fits = (not previous or (previous.tail ~= nil) == (frame.head ~= nil))
        and (not next or (frame.tail ~= nil) == (next.head ~= nil))
    local fault = not fits and "the record before it is not over, or over already" or nil
    local start = frame.head and beginning(stream, sequence)
    fault = start and assemble(stream, start, number) or fault
    if frame.tail and frame.tail ~= frame.head then
        fault = assemble(stream, sequence, number) or fault
    end
    return { frame = frame, fault = fault }
end

-- ---------------------------------------------------------------------------------------------------------------------------------
-- Frames
-- ---------------------------------------------------------------------------------------------------------------------------------

-- What no sender writes in a header of a known version and kind (`Frame::decode`).
local function header_fault(values)
    local flags = values["flags"]
    local known = 1
    if values["kind"] == DATA and values["version"] >= VERSION_ASKING then
        known = 3
    end
    if flags > known or values["zero1"] ~= 0 or values["zero2"] ~= 0 then
        return "a reserved bit is not 0"
    elseif flags % 2 == 0 and values["echo"] ~= 0 then
        return "there is an echo that is not valid"
    elseif values["dst.stream"] == 0 and values["kind"] ~= HELLO then
        return "no destination stream"
    elseif values["src.incarnation"] == 0 or values["dst.incarnation"] == 0 or values["src.stream"] == 0 then
        return "an incarnation or stream is 0"
    end
    local kind, length = values["kind"], values["length"]
    local suits = length == 0
    if kind == HELLO or kind == HELLO_ACK then
        suits = length >= GREETING_BYTES
    elseif kind == DATA then
        suits = length > CHUNK_HEAD_BYTES
    end
    return (not suits or length > MAX_PAYLOAD_BYTES) and "the payload does not suit the kind"
end

local function show_selective(tree, range, ack)
    local texts = {}
    for byte = 0, 7 do
        local bits = range(byte, 1):uint()
        for bit = 0, 7 do
            if math.floor(bits / 2 ^ bit) % 2 == 1 then
                local sequence = (ack + 1 + 8 * byte + bit) % 2 ^ 32
                tree:add(DERIVED.selective, range(byte, 1), sequence):set_generated()
                texts[#texts + 1] = string.format("%u", sequence)
            end
        end
    end
    return #texts > 0 and " (and " .. table.concat(texts, " ") .. ")" or ""
end

local function show_greeting(tree, range)
    local values = add_fields(tree, range, GREETING)
    local oldest, newest, payload = values["greeting.oldest"], values["greeting.newest"], values["greeting.payload"]
    if oldest == 0 or oldest > newest or payload < MIN_PAYLOAD_BYTES or payload > MAX_PAYLOAD_BYTES then
        return refuse(tree, EXPERTS.malformed, "a value in the greeting cannot be")
    end
    return string.format("versions %u to %u, payload up to %u", oldest, newest, payload)
end

-- Shows the chunks and gives the pieces that they are of records, or what is wrong.
local function show_chunks(tree, payload)
    local pieces, at = {}, 0
    while at < payload:len() do
        local rest = payload:len() - at
        local head = rest >= CHUNK_HEAD_BYTES and payload(at, CHUNK_HEAD_BYTES):le_uint() or 0
        local length = head % 0x4000
        if length == 0 or rest < CHUNK_HEAD_BYTES + length then
            tree:add(DERIVED.undecoded, payload(at))
            return nil, "the chunks do not fill the payload"
        end
        local range = payload(at, CHUNK_HEAD_BYTES + length)
        local below = tree:add(DERIVED.chunk, range)
        add_fields(below, range, CHUNK)
        below:append_text(string.format(" of %u bytes", length))
        local data = range(CHUNK_HEAD_BYTES)
        local first, last = math.floor(head / 0x4000) % 2 == 1, head >= 0x8000
        local piece = pieces[#pieces]
        if piece and first ~= piece.last then
            return nil, "a chunk does not continue the one before it"
        elseif piece and not first then
            -- Nothing forbids two chunks of one record in a frame.
            table.insert(piece.ranges, data)
            piece.last, piece.tree = last, below
        else
            pieces[#pieces + 1] = { first = first, last = last, ranges = { data }, tree = below }
        end
        at = at + CHUNK_HEAD_BYTES + length
    end
    return pieces
end

-- Shows what a piece of a record in this packet belongs to. Gives what the list of packets says of it, nil if nothing.
local function show_piece(piece, known, number)
    if piece.first and piece.last then
        local whole = #piece.ranges == 1 and piece.ranges[1] or bytes_in(piece):tvb("Record of several chunks"):range()
        return show_record(piece.tree, whole)
    end
    local record = known and known.record
    if not record then
        return "part of a record"
    elseif record.number ~= number then
        piece.tree:add(DERIVED.reassembled, record.number):set_generated()
        return string.format("part of a record (see %u)", record.number)
    end
    for _, part in ipairs(record.numbers) do
        piece.tree:add(DERIVED.part, part):set_generated()
    end
    return show_record(piece.tree, record.bytes:tvb("Reassembled record"):range())
end

local function show_data(tree, payload, values, key, pinfo)
    local pieces, fault = show_chunks(tree, payload)
    if fault then
        return refuse(tree, EXPERTS.malformed, fault)
    end
    local number = pinfo.number
    if not (pinfo.visited and memory[number]) then
        memory[number] = remember(key, number, values["sequence"], values["timestamp"], pieces)
    end
    local known = memory[number]
    local texts = {}
    if known.fault then
        texts[1] = refuse(tree, EXPERTS.malformed, known.fault)
    end
    if known.repeated then
        local text = string.format("%s of %u", known.repeated, known.frame.number)
        tree:add(DERIVED[known.repeated], known.frame.number):set_generated()
        texts[1] = refuse(tree, EXPERTS[known.repeated], text)
    end
    for index, piece in ipairs(pieces) do
        local stored = not piece.first and known.frame.head or not piece.last and known.frame.tail
        local text = show_piece(piece, stored, number)
        if index <= 4 then
            texts[#texts + 1] = text
        elseif index == #pieces then
            texts[#texts + 1] = string.format("%u more", #pieces - 4)
        end
    end
    return table.concat(texts, "; ")
end

-- What the list of packets says of a frame before its content.
local function head_text(values, kind, selective)
    if kind == "ack" then
        return string.format("ack %u%s", values["ack"], selective)
    elseif kind == "keepalive" then
        return string.format("keepalive seq %u ack %u", values["sequence"], values["ack"])
    elseif kind == "reset" then
        return "reset"
    end
    return string.format("%s seq %u", kind, values["sequence"])
end

function dvk.dissector(tvb, pinfo, root)
    local captured, reported = tvb:captured_len(), tvb:reported_len()
    -- The ethertype is for whoever experiments: what does not begin like ours is somebody else's.
    if captured < 2 or tvb(0, 2):le_uint() ~= MAGIC then
        return 0
    end
    pinfo.cols.protocol = "DVK"
    local tree = root:add(dvk, tvb())
    local function refused(info, text)
        pinfo.cols.info = refuse(tree, info, text)
        return captured
    end
    local function too_short(what)
        if captured < reported then
            return refused(EXPERTS.cut, "the capture has only a part of the frame")
        end
        return refused(EXPERTS.malformed, what)
    end
    if captured < HEADER_BYTES then
        tree:add(DERIVED.undecoded, tvb())
        return too_short("a frame is shorter than its header")
    end
    local version, raw_kind = tvb(2, 1):uint(), tvb(3, 1):uint()
    local kind = FRAME_KINDS[raw_kind]
    local is_greeting = raw_kind == HELLO or raw_kind == HELLO_ACK
    local oldest = is_greeting and GREETING_VERSION or VERSIONS.min
    local newest = is_greeting and GREETING_VERSION or VERSIONS.max
    if not kind or version < oldest or version > newest then
        -- Only these are where they are in all versions.
        add_fields(tree, tvb(0, 4), { HEADER[1], HEADER[2], HEADER[3] })
        tree:add(DERIVED.undecoded, tvb(4))
        if not kind then
            return refused(EXPERTS.unknown, string.format("frame of unknown kind %u", raw_kind))
        end
        return refused(EXPERTS.version, string.format("%s of unknown version %u", kind, version))
    end
    local values = add_fields(tree, tvb(0, HEADER_BYTES), HEADER)
    local selective = show_selective(tree, tvb(48, 8), values["ack"])
    local length = values["length"]
    local function show_rest(field, at)
        if captured > at then
            tree:add(field, tvb(at))
        end
    end
    local fault = header_fault(values)
    if fault then
        show_rest(DERIVED.undecoded, HEADER_BYTES)
        return refused(EXPERTS.malformed, kind .. ": " .. fault)
    elseif captured < HEADER_BYTES + length then
        show_rest(DERIVED.undecoded, HEADER_BYTES)
        return too_short(kind .. ": the payload is shorter than the header says")
    end
    local text = head_text(values, kind, selective)
    tree:append_text(string.format(", node %u to %u, %s", values["src.node"], values["dst.node"], text))
    if length > 0 then
        local payload = tvb(HEADER_BYTES, length)
        local key = table.concat({
            values["cluster"].hexadecimal,
            values["src.node"], values["src.incarnation"], values["src.stream"],
            values["dst.node"], values["dst.incarnation"], values["dst.stream"],
        }, " ")
        local content = is_greeting and show_greeting(tree, payload) or show_data(tree, payload, values, key, pinfo)
        text = text .. ": " .. content
    end
    pinfo.cols.info = text
    show_rest(DERIVED.padding, HEADER_BYTES + length)
    return captured
end

DissectorTable.get("ethertype"):add(ETHERTYPE, dvk)
