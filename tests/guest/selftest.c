/* The harness itself: faults are caught, ring 3 is entered and left. */
#include "cpu.h"

TEST(catch_ud)
{
	struct trap t;

	CATCH(t, __asm__ volatile("ud2"));
	CHECK_TRAP(t, VEC_UD, 0);
	CATCH(t, BARRIER());
	CHECK_EQ(t.vec, -1);
}

static void user_fn(void)
{
	__asm__ volatile("cli");
}

static void user_nothing(void)
{
}

TEST(ring3)
{
	struct trap t;

	run_user(&t, user_nothing, 0);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.cs & 3, 3);
	run_user(&t, user_fn, 0);
	CHECK_TRAP(t, VEC_GP, 0);
}

TEST(skip)
{
	CHECK_EQ(sizeof(ulong) * 8, SEL_CODE == SEL_CODE64 ? 64 : 32);
}
