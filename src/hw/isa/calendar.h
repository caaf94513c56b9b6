/*
 * Days and seconds of the Gregorian calendar from year 0 to 9999, in unsigned arithmetic: what a
 * real-time clock chip can show. Threads: pure.
 */
#pragma once
#include <stdint.h>

#define CALENDAR_SECONDS 315569520000ull /* 0000-01-01 up to 10000-01-01 */
#define CALENDAR_1970    62167219200ull  /* 1970-01-01 on this scale */

struct calendar {
	uint16_t year;                      /* 0..9999 */
	uint8_t month, day, hour, min, sec; /* from 1, 1, 0, 0, 0 */
	uint8_t weekday;                    /* 1 Sunday .. 7 Saturday; not looked at by seconds() */
};

/* seconds < CALENDAR_SECONDS (taken modulo). */
void calendar_from_seconds(struct calendar *c, uint64_t seconds);

/* Any field values: those out of range carry over into the next unit, and the result wraps. */
uint64_t calendar_seconds(const struct calendar *c);
