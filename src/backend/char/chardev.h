/*
 * Character devices: the host's end of a serial line or console.
 *
 * A chardev has one frontend at a time (a UART, a debug console, a monitor); a mux (mux.c) has
 * ports, each a chardev of its own. Bytes never get lost while there is a peer:
 *   input   a backend asks the frontend how many bytes it can take before it reads from the host,
 *           and stops watching the host's fd while that is 0 (chardev_accept_input resumes it);
 *   output  goes into a bounded queue that a writer (a thread of the backend) empties, so neither a
 *           vCPU nor the event loop ever blocks on a slow terminal. chardev_write tells how much
 *           the queue took; can_write says when there is room again, and a UART simply stays
 *           "transmitter busy" until then. A device without such a state (a debug port) uses
 *           chardev_write_all, which lets the queue grow past its bound, up to CHARDEV_HARD_MAX.
 * Without a peer (a socket nobody is connected to) output is taken and dropped: a guest does not
 * wait for somebody who may never come.
 * Threads: chardev_write*, chardev_accept_input: under the device lock. Handlers are called in the
 * event loop with the device lock held (never from within chardev_write or chardev_accept_input).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "core/loop.h"

#define CHARDEV_QUEUE    65536                /* bound for chardev_write */
#define CHARDEV_HARD_MAX (16ul * 1024 * 1024) /* bound for chardev_write_all */

enum chardev_event {
	CHARDEV_OPENED,  /* somebody is there */
	CHARDEV_CLOSED,  /* end of file, hang-up; more may come after a new OPENED */
	CHARDEV_BREAK,   /* a serial break condition */
	CHARDEV_MUX_IN,  /* below a mux: keys go to this frontend from now on ... */
	CHARDEV_MUX_OUT, /* ... and no longer */
	CHARDEV_RESIZED, /* c->cols and c->rows have changed */
};

/* What a UART tells the line below it. */
struct chardev_line {
	unsigned speed; /* bits a second */
	uint8_t bits;   /* 5 to 8 */
	uint8_t stop;   /* 1 or 2 */
	char parity;    /* 'N', 'E', 'O' */
};

/* A frontend's handlers; each may be NULL. */
struct chardev_handlers {
	size_t (*can_read)(void *opaque); /* how many bytes it can take now; NULL: none ever */
	void (*read)(void *opaque, const uint8_t *buf, size_t len); /* len <= can_read() */
	void (*can_write)(void *opaque); /* after a short chardev_write: there is room again */
	void (*event)(void *opaque, enum chardev_event ev);
};

/* Is a chardev fit to start the machine? */
enum chardev_ready {
	CHARDEV_CONNECTING, /* not yet, it will soon be known */
	CHARDEV_LISTENING,  /* not before somebody comes */
	CHARDEV_READY,
};

struct chardev;

/* What a kind of chardev implements. Embed struct chardev first. */
struct chardev_ops {
	const char *name;
	/* Take up to len bytes; force: take all if memory allows. Bytes taken. */
	size_t (*write)(struct chardev *c, const uint8_t *buf, size_t len, bool force);
	/* The frontend came, went, or has room again: look at can_read. NULL: no input. */
	void (*update)(struct chardev *c);
	/* Interrupt keys shall come as bytes: somebody above offers another way out. May be NULL.
	 */
	void (*take_keys)(struct chardev *c);
	/* Wait (bounded) until output has left. NULL: nothing is queued. */
	void (*flush)(struct chardev *c);
	void (*free)(struct chardev *c);

	/* enum chardev_ready, or -errno with e: never will be. NULL: ready. */
	int (*ready)(struct chardev *c, struct err *e);
	/* For people, as in "unix:/run/x,server=on". NULL: the name. */
	void (*describe)(struct chardev *c, char *buf, size_t cap);
	/* A free port of a mux; NULL function: the chardev itself is the only one. */
	struct chardev *(*port)(struct chardev *c);
	/* A real serial line below. May be NULL. */
	void (*set_line)(struct chardev *c, const struct chardev_line *line);
	void (*send_break)(struct chardev *c, bool on);
	/* Ask the terminal for its size, chardev_set_size. May be NULL. */
	void (*look_size)(struct chardev *c);
};

struct chardev {
	const struct chardev_ops *ops;
	char *id; /* owned */
	struct loop *loop;
	const struct chardev_handlers *fe; /* NULL: nobody attached */
	void *fe_opaque;
	bool want_write;      /* a write was short: can_write is owed */
	bool open;            /* somebody is at the other end */
	bool announce;        /* the frontend came later: CHARDEV_OPENED is owed */
	uint16_t cols, rows;  /* of the terminal at the other end; 0: not known */
	struct writer *log;   /* a copy of all output goes there; NULL: none */
	char *notice;         /* a line for the user who starts the machine; owned, may be NULL */
	struct bh update_bh;  /* calls ops->update in the loop */
	struct bh write_bh;   /* calls can_write in the loop */
	struct chardev *next; /* struct chardevs */
};

/* For backends: fill the common part. The chardev is open; one that is not yet clears c->open. */
void chardev_init(struct chardev *c, const struct chardev_ops *ops, struct loop *l, const char *id);
/* For backends, in the loop: what the frontend can take now (0 when nobody is attached). */
size_t chardev_fe_can_read(struct chardev *c);
void chardev_fe_read(struct chardev *c, const uint8_t *buf, size_t len);
/* OPENED and CLOSED also set c->open. */
void chardev_fe_event(struct chardev *c, enum chardev_event ev);
/* For backends, any thread: room after a short write. */
void chardev_fe_writable(struct chardev *c);

/*
 * For frontends. Attach: -EBUSY if another one has it. When somebody is at the other end already,
 * CHARDEV_OPENED comes soon.
 */
int chardev_attach(struct chardev *c, const struct chardev_handlers *h, void *opaque,
		   struct err *e) must_check;
void chardev_detach(struct chardev *c);

/* Output; bytes taken, 0..len. c may be NULL (not connected): everything is taken and dropped. */
size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t len);
void chardev_write_all(struct chardev *c, const uint8_t *buf, size_t len);

/* can_read may have grown: look again soon. NULL is allowed. */
void chardev_accept_input(struct chardev *c);

/* Is somebody at the other end? NULL: no. */
bool chardev_is_open(const struct chardev *c);

/* What the guest set a serial line to. Ignored by all but real lines. NULL is allowed. */
void chardev_set_line(struct chardev *c, const struct chardev_line *line);
void chardev_send_break(struct chardev *c, bool on);

/*
 * What a frontend attaches to: the chardev itself, or the next free port of a mux (its last one
 * when all are taken: attach then says so). NULL gives NULL.
 */
struct chardev *chardev_port(struct chardev *c);

/* Copy all output to a file from now on. 0 or -errno. */
int chardev_log_to(struct chardev *c, const char *path, bool append, struct err *e) must_check;

void chardev_describe(struct chardev *c, char *buf, size_t cap);

/* For backends and SIGWINCH: the terminal has this size. In the loop. */
void chardev_set_size(struct chardev *c, uint16_t cols, uint16_t rows);

/* Wait until queued output has left, at most about two seconds without progress. */
void chardev_flush(struct chardev *c);

/* Detach, flush, close, free. NULL is allowed. */
void chardev_free(struct chardev *c);

/* The chardevs of a machine, by id. */
struct chardevs {
	struct chardev *first;
};
int chardevs_add(struct chardevs *cs, struct chardev *c, struct err *e) must_check; /* takes it */
struct chardev *chardevs_find(const struct chardevs *cs, const char *id);
void chardevs_free(struct chardevs *cs);      /* all of them */
void chardevs_look_size(struct chardevs *cs); /* SIGWINCH came; in the loop */

/*
 * Serve the loop until all of them are fit to start the machine (a server with wait=on has a peer,
 * a client is connected) or *stop is true. waiting(c) is told once of each that listens.
 * 0, or -errno with e when one will never be.
 */
int chardevs_wait(struct chardevs *cs, const bool *stop, void (*waiting)(struct chardev *c),
		  struct err *e) must_check;

struct term;
struct chardev_opts;
struct chardev_mux_keys;

/*
 * Make one from options (opts.h). term: for stdio, see term.h; NULL leaves the terminal alone.
 * keys: for mux=on; NULL when there is none. NULL and e on failure.
 */
struct chardev *chardev_make(struct loop *l, const char *id, const struct chardev_opts *o,
			     struct term *term, const struct chardev_mux_keys *keys,
			     struct err *e) must_check;

struct chardev *chardev_null_new(struct loop *l, const char *id);
/* in_fd is watched and out_fd written; both stay the caller's. in_fd -1: no input. */
struct chardev *chardev_fd_new(struct loop *l, const char *id, int in_fd, int out_fd,
			       struct err *e);
/* Output to a file (append: after what is there); input from another one, NULL: none. */
struct chardev *chardev_file_new(struct loop *l, const char *id, const char *path, bool append,
				 const char *input, struct err *e);
/*
 * Standard input and output; the terminal goes raw until the chardev is freed. With keep_isig
 * Ctrl-C still raises SIGINT here; below a mux, which has C-a x, it is the guest's.
 */
struct chardev *chardev_stdio_new(struct loop *l, const char *id, struct term *term, bool keep_isig,
				  struct err *e);
/* The others, each in its file, from its options. */
struct chardev *chardev_pipe_new(struct loop *l, const char *id, const char *path, struct err *e);
struct chardev *chardev_pty_new(struct loop *l, const char *id, const char *link, struct err *e);
struct chardev *chardev_socket_new(struct loop *l, const char *id, const struct chardev_opts *o,
				   struct err *e);
struct chardev *chardev_tty_new(struct loop *l, const char *id, const char *path, struct err *e);
struct chardev *chardev_udp_new(struct loop *l, const char *id, const struct chardev_opts *o,
				struct err *e);

/* Keeps the last size bytes (a power of two) of output; for a monitor to read. */
struct chardev *chardev_ringbuf_new(struct loop *l, const char *id, uint64_t size, struct err *e);
/* Take out up to cap bytes, the oldest first. c must be one of these. */
size_t chardev_ringbuf_read(struct chardev *c, void *buf, size_t cap);
/* Input, as if a peer had sent it; bytes taken (what the frontend has room for). */
size_t chardev_ringbuf_write(struct chardev *c, const void *buf, size_t len);

/* For tests: input is pushed by the caller, output is kept. room: bytes it takes before it is full.
 */
struct chardev *chardev_ring_new(struct loop *l, const char *id, size_t room);
void chardev_ring_input(struct chardev *c, const void *buf, size_t len);
void chardev_ring_event(struct chardev *c, enum chardev_event ev);
/* What the frontend told of its line last. */
const struct chardev_line *chardev_ring_line(struct chardev *c, bool *brk);
size_t chardev_ring_output(struct chardev *c, void *buf, size_t cap); /* takes it out */

/*
 * Control-A keys over another chardev (which it takes over and frees), and several frontends: each
 * attaches to a port of its own (chardev_port), all of them write, and one at a time gets input.
 */
struct chardev_mux_keys {
	void (*quit)(void *opaque); /* C-a x; in the loop */
	/* C-a c with one frontend. NULL: the mux says that there is no monitor. */
	void (*switch_focus)(void *opaque);
	void *opaque;
};
struct chardev *chardev_mux_new(struct loop *l, const char *id, struct chardev *below,
				const struct chardev_mux_keys *keys, struct err *e);
/* Give input to the frontend of this port from now on (a monitor that wants attention). */
void chardev_mux_focus(struct chardev *port);
