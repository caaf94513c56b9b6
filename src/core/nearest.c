/*
 * See nearest.h. Edit distance with transpositions of neighbours (optimal string alignment), over
 * words short enough for a fixed table.
 */
#include "core/nearest.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define NEAREST_MAX 32

static int nearest_distance(const char *a, const char *b)
{
	int d[NEAREST_MAX + 1][NEAREST_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > NEAREST_MAX || lb > NEAREST_MAX)
		return NEAREST_MAX;
	for (size_t i = 0; i <= la; i++)
		d[i][0] = (int)i;
	for (size_t j = 0; j <= lb; j++)
		d[0][j] = (int)j;
	for (size_t i = 1; i <= la; i++)
		for (size_t j = 1; j <= lb; j++) {
			int ca = tolower((unsigned char)a[i - 1]);
			int cb = tolower((unsigned char)b[j - 1]);
			int v = d[i - 1][j - 1] + (ca != cb);

			v = d[i - 1][j] + 1 < v ? d[i - 1][j] + 1 : v;
			v = d[i][j - 1] + 1 < v ? d[i][j - 1] + 1 : v;
			if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
			    cb == tolower((unsigned char)a[i - 2]) && d[i - 2][j - 2] + 1 < v)
				v = d[i - 2][j - 2] + 1;
			d[i][j] = v;
		}
	return d[la][lb];
}

int text_nearest(const char *typed, const char *const *words, size_t n)
{
	int best = -1, best_d = 0;

	for (size_t i = 0; i < n; i++) {
		int dist;

		if (!words[i])
			continue;
		dist = nearest_distance(typed, words[i]);
		/* a beginning is as good as one letter off */
		if (strlen(typed) >= 3 && !strncasecmp(typed, words[i], strlen(typed)))
			dist = dist ? 1 : 0;
		if (best < 0 || dist < best_d) {
			best = (int)i;
			best_d = dist;
		}
	}
	return best >= 0 && best_d <= 1 + (int)strlen(typed) / 4 ? best : -1;
}

const char *text_nearest_hint(char *buf, size_t cap, const char *typed, const char *const *words,
			      size_t n)
{
	int i = text_nearest(typed, words, n);

	buf[0] = 0;
	if (i >= 0)
		snprintf(buf, cap, " (did you mean %s?)", words[i]);
	return buf;
}
