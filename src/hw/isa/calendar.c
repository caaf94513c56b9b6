/* See calendar.h. */
#include "hw/isa/calendar.h"

#include <stdbool.h>

static bool calendar_leap(unsigned y)
{
	return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
}

/* Days before January 1st of year y; year 0 is a leap year. */
static uint64_t calendar_year_days(unsigned y)
{
	return 365ull * y + (y + 3) / 4 - (y + 99) / 100 + (y + 399) / 400;
}

static unsigned calendar_month_days(unsigned y, unsigned month)
{
	static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return days[month] + (month == 1 && calendar_leap(y));
}

void calendar_from_seconds(struct calendar *c, uint64_t seconds)
{
	uint64_t days = seconds % CALENDAR_SECONDS / 86400, t = seconds % 86400;
	unsigned y = (unsigned)(days * 400 / 146097), m = 0;

	while (calendar_year_days(y + 1) <= days)
		y++;
	while (calendar_year_days(y) > days)
		y--;
	c->weekday = (uint8_t)((days + 6) % 7 + 1); /* 0000-01-01 was a Saturday */
	days -= calendar_year_days(y);
	for (; days >= calendar_month_days(y, m); m++)
		days -= calendar_month_days(y, m);
	c->year = (uint16_t)y;
	c->month = (uint8_t)(m + 1);
	c->day = (uint8_t)(days + 1);
	c->hour = (uint8_t)(t / 3600);
	c->min = (uint8_t)(t / 60 % 60);
	c->sec = (uint8_t)(t % 60);
}

uint64_t calendar_seconds(const struct calendar *c)
{
	unsigned month = c->month ? c->month - 1u : 0, y = c->year + month / 12;
	uint64_t days = calendar_year_days(y) + (c->day ? c->day - 1u : 0);

	for (unsigned m = 0; m < month % 12; m++)
		days += calendar_month_days(y, m);
	return (days * 86400 + c->hour * 3600ull + c->min * 60ull + c->sec) % CALENDAR_SECONDS;
}
