/* See telnet.h. */
#include "backend/char/telnet.h"

#include <string.h>

enum { SE = 240, BREAK = 243, SB = 250, WILL = 251, WONT = 252, DO = 253, DONT = 254 };
enum { BINARY = 0, ECHO = 1, SGA = 3 };

enum telnet_state {
	TELNET_DATA,
	TELNET_COMMAND, /* after IAC */
	TELNET_OPTION,  /* after IAC and t->verb */
	TELNET_SUB,     /* in a sub-negotiation */
	TELNET_SUB_IAC, /* after IAC in one */
};

void telnet_start(struct telnet *t, uint8_t out[TELNET_START])
{
	static const uint8_t start[TELNET_START] = {
		TELNET_IAC, WILL, ECHO,   TELNET_IAC, WILL, SGA,
		TELNET_IAC, WILL, BINARY, TELNET_IAC, DO,   BINARY,
	};

	*t = (struct telnet){ .state = TELNET_DATA, .us = 1 << ECHO | 1 << SGA | 1 << BINARY };
	memcpy(out, start, sizeof(start));
}

/*
 * The peer said verb about opt. Only a change is answered [RFC854 "the symmetry of the negotiation
 * syntax"]: an answer to each request would go round for ever between two such ends.
 */
static uint8_t telnet_answer(struct telnet *t, uint8_t verb, uint8_t opt)
{
	uint8_t bit = (uint8_t)(opt < 8 ? 1 << opt : 0);

	switch (verb) {
	case DO: return t->us & bit ? 0 : WONT; /* all that we would agree to was offered */
	case DONT:
		if (!(t->us & bit))
			return 0;
		t->us &= (uint8_t)~bit;
		return WONT;
	case WILL:
		if (opt != BINARY && opt != SGA)
			return DONT;
		if (t->peer & bit)
			return 0;
		t->peer |= bit;
		return opt == BINARY ? 0 : DO; /* binary was asked for by us */
	default: t->peer &= (uint8_t)~bit; return 0;
	}
}

/* What byte leads to. */
static enum telnet_state telnet_next(enum telnet_state state, uint8_t byte)
{
	switch (state) {
	case TELNET_DATA: return byte == TELNET_IAC ? TELNET_COMMAND : TELNET_DATA;
	case TELNET_COMMAND:
		return byte == SB                     ? TELNET_SUB
		       : byte >= WILL && byte <= DONT ? TELNET_OPTION
						      : TELNET_DATA;
	case TELNET_OPTION: return TELNET_DATA;
	case TELNET_SUB: return byte == TELNET_IAC ? TELNET_SUB_IAC : TELNET_SUB;
	case TELNET_SUB_IAC: break;
	}
	return byte == SE ? TELNET_DATA : TELNET_SUB;
}

static bool telnet_data(struct telnet *t, uint8_t byte)
{
	bool was_cr = t->cr;

	t->cr = byte == '\r';
	return byte || !was_cr || t->peer & 1 << BINARY;
}

size_t telnet_ahead(const struct telnet *t, const uint8_t *buf, size_t n)
{
	enum telnet_state state = (enum telnet_state)t->state;

	for (size_t i = 0; i < n; i++) {
		if (state == TELNET_COMMAND && buf[i] == BREAK)
			return i + 1;
		state = telnet_next(state, buf[i]);
	}
	return n;
}

size_t telnet_input(struct telnet *t, uint8_t *buf, size_t n, unsigned *breaks,
		    void (*reply)(void *opaque, const uint8_t *answer, size_t len), void *opaque)
{
	size_t out = 0;

	*breaks = 0;
	for (size_t i = 0; i < n; i++) {
		uint8_t byte = buf[i], answer[TELNET_REPLY] = { TELNET_IAC, 0, byte };
		enum telnet_state state = (enum telnet_state)t->state;

		t->state = (uint8_t)telnet_next(state, byte);
		switch (state) {
		case TELNET_DATA:
			if (byte != TELNET_IAC && telnet_data(t, byte))
				buf[out++] = byte;
			break;
		case TELNET_COMMAND:
			if (byte == TELNET_IAC && telnet_data(t, byte))
				buf[out++] = byte;
			else if (byte == BREAK)
				(*breaks)++;
			t->verb = byte;
			break;
		case TELNET_OPTION:
			answer[1] = telnet_answer(t, t->verb, byte);
			if (answer[1])
				reply(opaque, answer, sizeof(answer));
			break;
		case TELNET_SUB:
		case TELNET_SUB_IAC: break;
		}
	}
	return out;
}
