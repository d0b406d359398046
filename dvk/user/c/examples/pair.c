// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A server that adds up numbers, and one client, in two processes. The first argument is the number
 * of a container in which this node may bind two endpoints. With "lent" as the second, the client
 * lends the numbers in its memory, else they are in the message. Exits with 0 if all went as it
 * should, else says what did not.
 */
#include <dvk.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KIND_SUM = 0x501, KIND_OTHER = 0x502 };

/* The payload of a request: so many numbers, in it or, if there is a grant, lent. */
struct sum {
	uint64_t grant;
	uint32_t count;
	uint32_t numbers[9];
};

_Static_assert(sizeof(struct sum) <= DVK_PAYLOAD_BYTES, "a request fits a message");

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

/* Adds up what a request is about; 0 or why it cannot be done. */
static uint32_t add(int fd, uint64_t client, struct sum *request, uint64_t *sum)
{
	size_t bytes = request->count * sizeof(request->numbers[0]);
	struct dvk_granted from = { .endpoint = client, .grant = request->grant };
	uint64_t copied;

	if (bytes > sizeof(request->numbers))
		return EMSGSIZE;
	if (request->grant != 0) {
		if (dvk_copy_from(fd, &from, request->numbers, bytes, &copied, SECOND) < 0)
			return errno;
		expect(bytes, copied, "number of bytes copied");
	}
	for (uint32_t at = 0; at < request->count; at++)
		*sum += request->numbers[at];
	return 0;
}

/* Answers a request: with the sum, or, in the flags, why there is none. */
static void answer(int fd, struct dvk_message *message)
{
	struct sum request;
	uint64_t sum = 0;

	memcpy(&request, message->payload, sizeof(request));
	if (message->kind == KIND_SUM)
		message->flags = add(fd, message->source, &request, &sum);
	else
		message->flags = DVK_CODE_UNKNOWN;
	memset(message->payload, 0, sizeof(message->payload));
	memcpy(message->payload, &sum, sizeof(sum));
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

static uint32_t ask(int fd, uint64_t server, uint32_t kind, const struct sum *request,
		    uint64_t *sum)
{
	struct dvk_message message = { .kind = kind };

	memcpy(message.payload, request, sizeof(*request));
	check(dvk_sendrec(fd, server, &message, 10 * SECOND), "sendrec");
	expect(server, message.source, "source of the reply");
	memcpy(sum, message.payload, sizeof(*sum));
	return message.flags;
}

static void ask_by_message(int fd, uint64_t server)
{
	struct sum request = { .count = 4, .numbers = { 1, 20, 300, 4000 } };
	uint64_t sum;

	expect(0, ask(fd, server, KIND_SUM, &request, &sum), "status");
	expect(4321, sum, "sum");
	expect(DVK_CODE_UNKNOWN, ask(fd, server, KIND_OTHER, &request, &sum),
	       "status of an unknown request");
	request.count = 10;
	expect(EMSGSIZE, ask(fd, server, KIND_SUM, &request, &sum), "status of too many numbers");
}

static void ask_by_grant(int fd, uint64_t server)
{
	uint32_t numbers[4] = { 1, 20, 300, 4000 };
	struct sum request = { .count = 4 };
	uint64_t sum;

	check(dvk_grant(fd, numbers, sizeof(numbers), server, DVK_GRANT_READ, &request.grant),
	      "grant");
	expect(0, ask(fd, server, KIND_SUM, &request, &sum), "status of a grant");
	expect(4321, sum, "sum of what was lent");
	check(dvk_revoke(fd, request.grant), "revoke");
	expect(EACCES, ask(fd, server, KIND_SUM, &request, &sum),
	       "status after the grant was revoked");
}

int main(int argc, char **argv)
{
	uint32_t container = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	int lent = argc > 2 && strcmp(argv[2], "lent") == 0;
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
		if (lent)
			ask_by_grant(fd, server);
		else
			ask_by_message(fd, server);
		check(dvk_notify(fd, server, 0x11), "notify");
		return 0;
	}
	serve(fd);
	check(close(fd), "close");
	check(waitpid(child, &status, 0), "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
