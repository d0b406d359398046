/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of the driver. trace.rs has their Rust side, with the same arguments;
 * docs/observability.md says what the fields mean.
 *
 * What has a name in Rust comes as a string: so no number is defined a second time here.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dvk

#if !defined(DVK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DVK_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

/* An endpoint as everywhere: slot.generation. */
#define DVK_ENDPOINT_FORMAT "%u.%u"
#define DVK_ENDPOINT(endpoint) lower_32_bits(endpoint), upper_32_bits(endpoint)

TRACE_EVENT(dvk_call_begin,
	TP_PROTO(u32 container, u64 endpoint, const char *call, u64 peer),
	TP_ARGS(container, endpoint, call, peer),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u64, peer)
		__field(u32, container)
		__string(call, call)
	),
	TP_fast_assign(
		__entry->endpoint = endpoint;
		__entry->peer = peer;
		__entry->container = container;
		__assign_str(call);
	),
	TP_printk("container=%u endpoint=" DVK_ENDPOINT_FORMAT " call=%s peer=" DVK_ENDPOINT_FORMAT,
		  __entry->container, DVK_ENDPOINT(__entry->endpoint), __get_str(call),
		  DVK_ENDPOINT(__entry->peer))
);

TRACE_EVENT(dvk_call_end,
	TP_PROTO(u32 container, u64 endpoint, const char *call, u64 peer, int error),
	TP_ARGS(container, endpoint, call, peer, error),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u64, peer)
		__field(u32, container)
		__field(int, error)
		__string(call, call)
	),
	TP_fast_assign(
		__entry->endpoint = endpoint;
		__entry->peer = peer;
		__entry->container = container;
		__entry->error = error;
		__assign_str(call);
	),
	TP_printk("container=%u endpoint=" DVK_ENDPOINT_FORMAT " call=%s peer=" DVK_ENDPOINT_FORMAT
		  " errno=%d",
		  __entry->container, DVK_ENDPOINT(__entry->endpoint), __get_str(call),
		  DVK_ENDPOINT(__entry->peer), __entry->error)
);

TRACE_EVENT(dvk_notify,
	TP_PROTO(u32 container, u64 endpoint, u64 peer, u64 bits),
	TP_ARGS(container, endpoint, peer, bits),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u64, peer)
		__field(u64, bits)
		__field(u32, container)
	),
	TP_fast_assign(
		__entry->endpoint = endpoint;
		__entry->peer = peer;
		__entry->bits = bits;
		__entry->container = container;
	),
	TP_printk("container=%u endpoint=" DVK_ENDPOINT_FORMAT " peer=" DVK_ENDPOINT_FORMAT
		  " bits=0x%llx",
		  __entry->container, DVK_ENDPOINT(__entry->endpoint),
		  DVK_ENDPOINT(__entry->peer), __entry->bits)
);

DECLARE_EVENT_CLASS(dvk_binding,
	TP_PROTO(u32 container, u64 endpoint),
	TP_ARGS(container, endpoint),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u32, container)
	),
	TP_fast_assign(
		__entry->endpoint = endpoint;
		__entry->container = container;
	),
	TP_printk("container=%u endpoint=" DVK_ENDPOINT_FORMAT,
		  __entry->container, DVK_ENDPOINT(__entry->endpoint))
);

DEFINE_EVENT(dvk_binding, dvk_bind,
	TP_PROTO(u32 container, u64 endpoint),
	TP_ARGS(container, endpoint)
);

DEFINE_EVENT(dvk_binding, dvk_unbind,
	TP_PROTO(u32 container, u64 endpoint),
	TP_ARGS(container, endpoint)
);

TRACE_EVENT(dvk_link_state,
	TP_PROTO(u32 node, const char *event),
	TP_ARGS(node, event),
	TP_STRUCT__entry(
		__field(u32, node)
		__string(event, event)
	),
	TP_fast_assign(
		__entry->node = node;
		__assign_str(event);
	),
	TP_printk("node=%u event=%s", __entry->node, __get_str(event))
);

TRACE_EVENT(dvk_frame_rejected,
	TP_PROTO(u32 node, const char *reason),
	TP_ARGS(node, reason),
	TP_STRUCT__entry(
		__field(u32, node)
		__string(reason, reason)
	),
	TP_fast_assign(
		__entry->node = node;
		__assign_str(reason);
	),
	TP_printk("node=%d reason=%s", (int)__entry->node, __get_str(reason))
);

#endif /* DVK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE dvk_trace
#include <trace/define_trace.h>
