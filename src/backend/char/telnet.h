/*
 * The telnet protocol as far as a console needs it: option negotiation, IAC escapes, BREAK.
 *
 * We offer to echo (the guest does) and to suppress go-ahead, which puts the usual clients into
 * character mode, and ask for binary both ways; whatever else the peer wants is refused. Until the
 * peer agrees to binary, its CR NUL is one CR.
 * Not modelled: CR NUL on output to a peer that refuses binary; no sub-option is understood.
 * Reference: [RFC854], [RFC855], [RFC856], [RFC857], [RFC858].
 * Threads: pure functions over the caller's struct.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TELNET_IAC   255
#define TELNET_START 12 /* bytes of telnet_start */
#define TELNET_REPLY 3  /* bytes of one answer */

struct telnet {
	uint8_t state; /* enum telnet_state, private */
	uint8_t verb;  /* WILL, WONT, DO or DONT, whose option is still to come */
	bool cr;       /* the last byte was CR */
	/* our options and the peer's, by bit: only options below 8 are ever on */
	uint8_t us, peer;
};

/* A new connection: fills out with what is to be sent first. */
void telnet_start(struct telnet *t, uint8_t out[TELNET_START]);

/*
 * Strip n bytes of input of the protocol, in place; the bytes left. *breaks: how often BREAK was
 * among them. reply(opaque, answer, TELNET_REPLY) is called for each answer to be sent.
 */
size_t telnet_input(struct telnet *t, uint8_t *buf, size_t n, unsigned *breaks,
		    void (*reply)(void *opaque, const uint8_t *answer, size_t len), void *opaque);

/*
 * How many of n bytes of input, which telnet_input has not seen, to take at once so that a BREAK
 * keeps its place: up to the end of the first one, or all. 0 only for 0. t does not change.
 */
size_t telnet_ahead(const struct telnet *t, const uint8_t *buf, size_t n);
