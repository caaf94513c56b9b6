/*
 * Vector stubs, trap_setjmp and the way into other rings, 32-bit. The handler may be entered on a
 * 16-bit or otherwise odd stack segment of base 0; it goes on with the flat one.
 */
	.text
	.global trap_stubs
	.align 16
trap_stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if !(vec == 8 || (vec >= 10 && vec <= 14) || vec == 17 || vec == 21 || vec == 29 || vec == 30)
	pushl $0
	.endif
	pushl $vec
	jmp trap_common
	.set vec, vec + 1
	.endr

trap_common:
	pushal
	push %ds
	push %es
	push %fs
	push %gs
	push %ss
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %ss, %eax
	lar %eax, %ecx
	bt $22, %ecx
	jc 1f
	movzwl %sp, %esp
1:	mov $0x10, %edx
	mov %esp, %ebx
	mov %edx, %ss
	mov %ebx, %esp
	cld
	push %esp
	call trap_dispatch
	add $4, %esp
	mov %esp, %ebx
	mov (%ebx), %ss
	mov %ebx, %esp
	add $4, %esp
	pop %gs
	pop %fs
	pop %es
	pop %ds
	popal
	add $8, %esp
	iretl

	/* int trap_setjmp(struct catch_buf *): ip, sp, bx, bp, si, di */
	.global trap_setjmp
trap_setjmp:
	mov 4(%esp), %eax
	mov (%esp), %edx
	mov %edx, (%eax)
	lea 4(%esp), %edx
	mov %edx, 4(%eax)
	mov %ebx, 8(%eax)
	mov %ebp, 12(%eax)
	mov %esi, 16(%eax)
	mov %edi, 20(%eax)
	xor %eax, %eax
	ret

	/* trap_longjmp(struct catch_buf *), from any ring-0 state with a usable flat %ds */
	.global trap_longjmp
trap_longjmp:
	mov 4(%esp), %ecx
	mov $0x10, %eax
	mov %eax, %es
	mov %eax, %fs
	mov %eax, %gs
	mov %eax, %ss
	mov 4(%ecx), %esp
	push $2
	popf
	mov 8(%ecx), %ebx
	mov 12(%ecx), %ebp
	mov 16(%ecx), %esi
	mov 20(%ecx), %edi
	mov $1, %eax
	jmp *(%ecx)

	/* run_iret(const ulong f[9] {ip, cs, flags, sp, ss, es, ds, fs, gs}, const ulong r[4]) */
	.global run_iret
run_iret:
	mov 4(%esp), %eax
	mov 8(%esp), %ebx
	mov $8, %ecx
1:	pushl (%eax, %ecx, 4)
	dec %ecx
	jns 1b
	mov (%ebx), %edi
	mov 4(%ebx), %esi
	mov 8(%ebx), %edx
	mov 12(%ebx), %ecx
	testl $0x20000, 8(%esp)
	jnz run_iret_insn
	mov 24(%esp), %eax
	mov %eax, %ds
	mov 20(%esp), %eax
	mov %eax, %es
	.global run_iret_insn
run_iret_insn:
	iretl

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
