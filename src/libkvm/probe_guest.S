/*
 * The live probe's guest: real mode, protected mode, long mode, LOCK CMPXCHG16B, an interrupt, a
 * timed loop. It is copied to PROBE_BASE and tells its progress by OUT to PROBE_PORT; a stage that
 * goes wrong says PROBE_BAD. The page tables, the IDT and the layout are libkvm/probe.c's.
 *
 * References: [SDM3 9.8, 9.9].
 */
#include "libkvm/probe.h"

#define AT(label) (label - probe_guest + PROBE_BASE)

	.section .rodata
	.globl probe_guest, probe_guest_end, probe_guest_handler
	.hidden probe_guest, probe_guest_end, probe_guest_handler
	.p2align 4
	.code16
probe_guest:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movb $PROBE_REAL, %al
	outb %al, $PROBE_PORT
	lgdtl AT(gdtr)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x08, $AT(protected)

	.code32
protected:
	movw $0x10, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $PROBE_STACK, %esp
	movb $PROBE_PROTECTED, %al
	outb %al, $PROBE_PORT
	movl %cr4, %eax
	orl $0x20, %eax /* PAE */
	movl %eax, %cr4
	movl $PROBE_PML4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx /* EFER */
	rdmsr
	orl $0x100, %eax /* LME */
	wrmsr
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	ljmpl $0x18, $AT(long)

	.code64
long:
	movb $PROBE_LONG, %al
	outb %al, $PROBE_PORT
	/* LOCK CMPXCHG16B: equal, so the new value goes in and ZF is set. */
	movl $PROBE_DATA, %edi
	movq (%rdi), %rax
	movq 8(%rdi), %rdx
	movl $0x11111111, %ebx
	movl $0x22222222, %ecx
	lock cmpxchg16b (%rdi)
	jnz bad
	cmpq %rbx, (%rdi)
	jne bad
	cmpq %rcx, 8(%rdi)
	jne bad
	movb $PROBE_LOCKED, %al
	outb %al, $PROBE_PORT
	/* An interrupt, which user space injects at the next OUT. */
	lidt AT(idtr)
	sti
	nop
	movb $PROBE_WAITING, %al
	outb %al, $PROBE_PORT
	movl $1000, %ecx
1:	cmpl $1, PROBE_DATA + 16
	je 2f
	decl %ecx
	jnz 1b
	jmp bad
2:	movb $PROBE_INTERRUPTED, %al
	outb %al, $PROBE_PORT
	/* Timed loops, as often as user space lets us go on. */
3:	movl $PROBE_LOOPS, %ecx
	xorl %eax, %eax
4:	addl %ecx, %eax
	movl %eax, PROBE_DATA + 24
	decl %ecx
	jnz 4b
	movb $PROBE_LOOPED, %al
	outb %al, $PROBE_PORT
	jmp 3b
bad:
	movb $PROBE_BAD, %al
	outb %al, $PROBE_PORT
	hlt
	jmp bad
probe_guest_handler:
	movl $1, PROBE_DATA + 16
	iretq

	.p2align 3
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* 32-bit code */
	.quad 0x00cf93000000ffff /* data */
	.quad 0x00af9b000000ffff /* 64-bit code */
gdtr:
	.word gdtr - gdt - 1
	.long AT(gdt)
	.p2align 3
idtr:
	.word 256 * 16 - 1
	.quad PROBE_IDT
probe_guest_end:
	.section .note.GNU-stack, "", @progbits
