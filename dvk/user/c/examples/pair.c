// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A server that adds up what its clients lend it, and one client, in two processes. The argument is
 * the number of a container in which this node may bind two endpoints. Exits with 0 if all went as
 * it should, else says what did not.
 */
#include <dvk.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KIND_SUM = 0x501, KIND_STOP = 0x502 };

/* The payload of a request: so many numbers are lent. */
struct sum {
	uint64_t grant;
	uint32_t count;
	uint32_t reserved;
};

#define SECOND INT64_C(1000000000)

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void expect(uint64_t expected, uint64_t found, const char *what)
{
	if (found != expected) {
		fprintf(stderr, "%s is %llu instead of %llu\n", what,
			(unsigned long long)found, (unsigned long long)expected);
		exit(1);
	}
}

/* Answers one request: with the sum, or, in the flags, why there is none. */
static void answer(int fd, struct dvk_message *message)
{
	uint32_t numbers[16];
	uint64_t sum = 0, copied;
	struct sum request;

	memcpy(&request, message->payload, sizeof(request));
	struct dvk_granted from = { .endpoint = message->source, .grant = request.grant };
	size_t bytes = request.count * sizeof(numbers[0]);

	memset(message->payload, 0, sizeof(message->payload));
	if (message->kind != KIND_SUM) {
		message->flags = DVK_CODE_UNKNOWN;
	} else if (bytes > sizeof(numbers)) {
		message->flags = EMSGSIZE;
	} else if (dvk_copy_from(fd, &from, numbers, bytes, &copied, SECOND) < 0) {
		message->flags = errno;
	} else {
		expect(bytes, copied, "number of bytes copied");
		for (uint32_t at = 0; at < request.count; at++)
			sum += numbers[at];
		memcpy(message->payload, &sum, sizeof(sum));
		message->flags = 0;
	}
}

static void serve(int fd)
{
	struct dvk_message message;
	uint32_t how;

	check(dvk_receive(fd, DVK_ENDPOINT_ANY, &message, &how, 10 * SECOND), "receive");
	while (how == DVK_HOW_REQUEST) {
		answer(fd, &message);
		check(dvk_reply_receive(fd, message.source, &message, DVK_ENDPOINT_ANY, &how,
					10 * SECOND), "reply_receive");
	}
	expect(DVK_HOW_NOTIFY, how, "how the last message was sent");
	expect(0x11, dvk_notify_bits(&message), "what was notified");
}

static void ask(int fd, uint64_t server)
{
	uint32_t numbers[4] = { 1, 20, 300, 4000 };
	struct dvk_message message = { .kind = KIND_SUM };
	struct sum request = { .count = 4 };
	uint64_t sum;

	check(dvk_grant(fd, numbers, sizeof(numbers), server, DVK_GRANT_READ, &request.grant),
	      "grant");
	memcpy(message.payload, &request, sizeof(request));
	check(dvk_sendrec(fd, server, &message, 10 * SECOND), "sendrec");
	expect(0, message.flags, "status");
	expect(server, message.source, "source");
	memcpy(&sum, message.payload, sizeof(sum));
	expect(4321, sum, "sum");

	check(dvk_revoke(fd, request.grant), "revoke");
	memcpy(message.payload, &request, sizeof(request));
	check(dvk_sendrec(fd, server, &message, 10 * SECOND), "sendrec");
	expect(EACCES, message.flags, "status after the grant was revoked");

	message.kind = KIND_STOP;
	check(dvk_sendrec(fd, server, &message, 10 * SECOND), "sendrec");
	expect(DVK_CODE_UNKNOWN, message.flags, "status of an unknown request");

	check(dvk_notify(fd, server, 0x11), "notify");
	check(dvk_wait_unbind(fd, server, 10 * SECOND), "wait_unbind");
	expect(0, dvk_notify(fd, server, 1) == 0, "success of a notify to the dead");
	expect(ESTALE, errno, "errno of a notify to the dead");
}

int main(int argc, char **argv)
{
	uint32_t container = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	uint64_t server, client;
	struct dvk_info info;
	int status;

	int fd = dvk_open(container);
	check(fd, "open");
	check(dvk_bind(fd, DVK_SLOT_ANY, 0, &server), "bind");
	check(dvk_get_info(fd, &info), "get_info");
	expect(server, info.endpoint, "endpoint");
	expect(container, info.container, "container");

	pid_t child = fork();
	check(child, "fork");
	if (child == 0) {
		/* The server's endpoint is the parent's alone. */
		close(fd);
		fd = dvk_open(container);
		check(fd, "open");
		check(dvk_bind(fd, DVK_SLOT_ANY, 0, &client), "bind");
		ask(fd, server);
		return 0;
	}
	serve(fd);
	check(close(fd), "close");
	check(waitpid(child, &status, 0), "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
