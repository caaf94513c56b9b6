/*
 * BUG_ON: an error of ours. Kept in release builds; never on a value a guest, an image or a peer
 * can choose. Prints where and aborts.
 */
#pragma once

__attribute__((noreturn, cold)) void bug_at(const char *file, int line, const char *what);

#define BUG_ON(c) ((c) ? bug_at(__FILE__, __LINE__, #c) : (void)0)
#define BUG(what) bug_at(__FILE__, __LINE__, what)
