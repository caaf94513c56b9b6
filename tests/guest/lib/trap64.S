/* Vector stubs, trap_setjmp and the way into other rings, 64-bit. */
	.text
	.global trap_stubs
	.align 16
trap_stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if !(vec == 8 || (vec >= 10 && vec <= 14) || vec == 17 || vec == 21 || vec == 29 || vec == 30)
	pushq $0
	.endif
	pushq $vec
	jmp trap_common
	.set vec, vec + 1
	.endr

trap_common:
	push %rax
	push %rbx
	push %rcx
	push %rdx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	mov %rsp, %rbp
	and $-16, %rsp
	call trap_dispatch
	mov %rbp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rdx
	pop %rcx
	pop %rbx
	pop %rax
	add $16, %rsp
	iretq

	/* int trap_setjmp(struct catch_buf *): ip, sp, bx, bp, r12-r15 */
	.global trap_setjmp
trap_setjmp:
	mov (%rsp), %rax
	mov %rax, (%rdi)
	lea 8(%rsp), %rax
	mov %rax, 8(%rdi)
	mov %rbx, 16(%rdi)
	mov %rbp, 24(%rdi)
	mov %r12, 32(%rdi)
	mov %r13, 40(%rdi)
	mov %r14, 48(%rdi)
	mov %r15, 56(%rdi)
	xor %eax, %eax
	ret

	/* run_iret(struct frame-like {ip, cs, flags, sp, ss} *f, const ulong r[4]) */
	.global run_iret
run_iret:
	mov 32(%rdi), %rax
	push %rax
	mov 24(%rdi), %rax
	push %rax
	mov 16(%rdi), %rax
	push %rax
	mov 8(%rdi), %rax
	push %rax
	mov (%rdi), %rax
	push %rax
	testb $3, 8(%rdi)
	jz 1f
	mov $0x2b, %eax
	mov %eax, %ds
	mov %eax, %es
1:	mov %rsi, %rax
	mov (%rax), %rdi
	mov 8(%rax), %rsi
	mov 16(%rax), %rdx
	mov 24(%rax), %rcx
	.global run_iret_insn
run_iret_insn:
	iretq

	.global user_exit
user_exit:
	int $0x40

	.bss
	.align 16
	.skip 0x4000
	.global user_stack_top
user_stack_top:
	.skip 64
	.section .note.GNU-stack, "", @progbits
