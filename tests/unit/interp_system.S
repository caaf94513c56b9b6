/*
 * Guests of interp_system.c, loaded at 8000h. Each reports 32-bit words to port 10h and ends by a
 * write to port f4h. FAULT runs one instruction that must fault: the handler reports
 * vector << 16 | error code and goes on behind it.
 */
#define A(l) (l - guest + 0x8000)
#define REPORT(x) movl $(x), %eax; outl %eax, $0x10
#define FAULT(...) movl $A(9f), A(resume); __VA_ARGS__; 9:
#define DONE outb %al, $0xf4

	.section .rodata
	.global guest_protected, guest_protected_end
	.balign 16
guest:
guest_protected:
	.code16
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $0x7000, %sp
	movw $A(real_int), 0x84
	movw $0, 0x86
	sti
	int $0x21
	pushfw
	popw %ax
	andl $0x200, %eax
	outl %eax, $0x10		/* IF is back */
	cli
	lcall $0x800, $(real_far - guest)
	movl $0x600d, %eax
	outl %eax, $0x10
	lgdtl A(gdtr)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $8, $A(pm)
real_int:
	pushfw
	popw %ax
	andl $0x200, %eax
	orl $0x21, %eax
	outl %eax, $0x10		/* IF is clear in the handler */
	iretw
real_far:
	movw %cs, %ax
	movzwl %ax, %eax
	outl %eax, $0x10
	lretw

	.code32
pm:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x7000, %esp
	lidtl A(idtr)
	movl $0x28, %eax
	ltr %ax
	movl %cs, %eax
	outl %eax, $0x10
	int $0x30

	FAULT(movl $0x1003, %ecx; movl %ecx, %ds)	/* outside the GDT */
	FAULT(xorl %ecx, %ecx; movl %ecx, %ss)		/* null SS */
	FAULT(movl $0x40, %ecx; movl %ecx, %es)		/* not present */
	FAULT(movl $0x40, %ecx; movl %ecx, %ss)
	FAULT(movl $0x23, %ecx; movl %ecx, %ss)		/* RPL and DPL 3 */
	FAULT(int $0x90)				/* outside the IDT */
	FAULT(int $0x31)				/* gate not present */
	FAULT(ljmpl $0x10, $0)				/* data segment */
	FAULT(ljmpl $0, $0)
	FAULT(movl $0x28, %ecx; ltr %cx)		/* busy */
	FAULT(movl $0x10, %ecx; lldt %cx)
	FAULT(xorl %ecx, %ecx; divl %ecx)
	FAULT(ud2)
	FAULT(movl $0x80000000, %ecx; movl %ecx, %cr0)	/* PG without PE */
	FAULT(movl $0x48, %ecx; movl %ecx, %es; movl %es:0x1000, %ecx) /* limit 0fffh */
	movl $0x10, %eax
	movl %eax, %es
	movl $0x18, %ecx				/* LAR and LSL of ring 3 code */
	lar %ecx, %eax
	outl %eax, $0x10
	movl $0x48, %ecx
	lsl %ecx, %eax
	outl %eax, $0x10
	movb A(gdt) + 0x48 + 5, %al			/* accessed bit was set by the load */
	movzbl %al, %eax
	outl %eax, $0x10

	FAULT(pushl $2; pushl $0x10; pushl $0; iretl)	/* returns to no code, */
	FAULT(pushl $0x20; pushl $0; pushl $2; pushl $0x1b; pushl $0; iretl) /* bad SS, */
	FAULT(pushl $0; pushl $0; lretl)		/* null CS */
	movl $0x7000, %esp

	lcall $0x60, $0					/* a 16-bit task and back */
	REPORT(0x16)
	movl $A(1f), A(resume)				/* a task whose SS is null: #TS is the */
	ljmpl $0x58, $0					/* new task's, see ts_handler */
1:	movl $0x28, %eax
	ltr %ax
	movl $0x10, %eax
	movl %eax, %es

	/* ring 3 */
	pushl $0x23
	pushl $0x6800
	pushl $2
	pushl $0x1b
	pushl $A(ring3)
	iretl
ring3:
	movl %ds, %eax					/* dropped: its DPL was 0 */
	outl %eax, $0x10
	movl $0x23, %eax
	movl %eax, %ds
	FAULT(inb $0x60, %al)				/* not in the bitmap */
	FAULT(cli)
	FAULT(int $0x30)				/* gate of DPL 0 */
	FAULT(movl %cr0, %eax)
	int $0x80
	lcall $0x6b, $A(conforming)
	pushl $0x1111
	pushl $0x2222
	lcall $0x33, $0					/* call gate, two parameters */
	movl %esp, %eax					/* released by the callee */
	outl %eax, $0x10
	lcall $0x53, $0					/* another task */
	REPORT(0x7a5c)
	int $0x81					/* back to ring 0 for good */

gate_target:
	movl %cs, %eax
	outl %eax, $0x10
	movl 8(%esp), %eax
	outl %eax, $0x10
	movl 12(%esp), %eax
	outl %eax, $0x10
	movl 20(%esp), %eax				/* outer SS */
	outl %eax, $0x10
	lretl $8

conforming:
	movl %cs, %eax
	outl %eax, $0x10
	lretl

task16:
	outl %eax, $0x10
	movzwl A(tss16), %eax				/* link */
	outl %eax, $0x10
	movl %esp, %eax
	outl %eax, $0x10
	iretl

ts_handler:
	movl (%esp), %eax
	orl $0xa0000, %eax
	outl %eax, $0x10
	movl 4(%esp), %eax				/* EIP of the new task */
	outl %eax, $0x10
	movl 8(%esp), %eax
	outl %eax, $0x10
	xorl %eax, %eax
	str %ax
	outl %eax, $0x10
	movl $0x10, %eax
	movl %eax, %ds
	movl $0x7000, %esp
	jmp *A(resume)

task2:
	movl $0x10, %eax
	str %ax
	movzwl %ax, %eax
	outl %eax, $0x10
	pushfl
	popl %eax
	andl $0x4000, %eax				/* NT */
	outl %eax, $0x10
	movl %cr0, %eax
	andl $8, %eax					/* TS */
	outl %eax, $0x10
	clts
	iretl
	REPORT(0xbad)

int30:
	REPORT(0x3030)
	iretl
int80:
	movl %ss, %eax
	outl %eax, $0x10
	movl 4(%esp), %eax				/* outer CS */
	outl %eax, $0x10
	iretl
int81:
	movl $0x10, %eax
	movl %eax, %ds
	movl $0x7000, %esp
	/*
	 * virtual-8086 mode with VME: of the redirection bitmap, which lies below the I/O bitmap, byte
	 * 4 is now the CS that the task switch has saved, 1bh: 21h is not redirected, 22h is
	 */
	movl $1, %eax
	movl %eax, %cr4
	movl $0x8000000 + (v86_int - guest), 0x88
	pushl $0
	pushl $0
	pushl $0x801
	pushl $0x802
	pushl $0x700
	pushl $0x100
	pushl $0x20002
	pushl $0x800
	pushl $(v86 - guest)
	iretl
	.code16
v86:
	movw %ds, %ax
	movzwl %ax, %eax
	outl %eax, $0x10
	movl $A(v86_1) - 0x8000, %ecx
	movw $0x800, %ax
	movw %ax, %ds
	movl %ecx, (resume - guest)
	int $0x21					/* IOPL 0 */
v86_1:
	sti						/* VIF */
	int $0x22
	movl $(v86_2 - guest), (resume - guest)
	pushl $0
	popfl						/* 32 bits need IOPL 3 */
v86_2:
	int3						/* gate of DPL 3 */
v86_int:
	movw %sp, %bp
	movw 4(%bp), %ax				/* IOPL 3 and VIF as IF */
	andl $0x3200, %eax
	outl %eax, $0x10
	andw $0xfdff, 4(%bp)				/* clears VIF */
	iretw
	.code32
int3_handler:
	movl 8(%esp), %eax				/* VM; VIF is clear */
	andl $0xa0000, %eax
	outl %eax, $0x10
	movl 24(%esp), %eax				/* DS of the program */
	outl %eax, $0x10
	movl %ds, %eax
	outl %eax, $0x10
	DONE

	.macro stub vec, has
fault\vec:
	.if \has == 0
	pushl $0
	.endif
	pushl $\vec
	jmp fault
	.endm
	stub 0, 0
	stub 6, 0
	stub 8, 1
	stub 11, 1
	stub 12, 1
	stub 13, 1
	stub 14, 1
fault:
	pushl %eax
	movl 4(%esp), %eax
	shll $16, %eax
	orl 8(%esp), %eax
	outl %eax, $0x10
	pushl %ds
	movl $0x10, %eax
	movl %eax, %ds
	movl A(resume), %eax
	movl %eax, 16(%esp)
	popl %ds
	popl %eax
	addl $8, %esp
	iretl

	.macro gate type, sel, target
	.word A(\target) & 0xffff, \sel, \type << 8, 0
	.endm
	.balign 8
idt:
	gate 0x8e, 8, fault0
	gate 0, 0, guest
	gate 0, 0, guest
	gate 0xee, 8, int3_handler
	gate 0, 0, guest
	gate 0, 0, guest
	gate 0x8e, 8, fault6
	gate 0, 0, guest
	gate 0x8e, 8, fault8
	gate 0, 0, guest
	gate 0x8e, 8, ts_handler
	gate 0x8e, 8, fault11
	gate 0x8e, 8, fault12
	gate 0x8e, 8, fault13
	gate 0x8e, 8, fault14
	.fill 8 * (0x30 - 15), 1, 0
	gate 0x8e, 8, int30
	gate 0x0e, 8, int30
	.fill 8 * (0x80 - 0x32), 1, 0
	gate 0xee, 8, int80
	gate 0xee, 8, int81
idt_end:
	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9a000000ffff	/* 08 code */
	.quad 0x00cf92000000ffff	/* 10 data */
	.quad 0x00cffa000000ffff	/* 18 code, ring 3 */
	.quad 0x00cff2000000ffff	/* 20 data, ring 3 */
	.word 136, A(tss), 0x8900, 0	/* 28 TSS */
	.word A(gate_target), 8, 0xec02, 0 /* 30 call gate, 2 parameters */
	.quad 0x00cf9a000000ffff	/* 38 */
	.quad 0x00cf12000000ffff	/* 40 data, not present */
	.quad 0x0040920000000fff	/* 48 data, 4 KiB */
	.word 103, A(tss2), 0xe900, 0	/* 50 TSS, ring 3 may call */
	.word 103, A(tss3), 0x8900, 0	/* 58 TSS of a task with a null SS */
	.word 43, A(tss16), 0x8100, 0	/* 60 TSS of 16 bits */
	.quad 0x00cf9e000000ffff	/* 68 conforming code */
gdt_end:
gdtr:
	.word gdt_end - gdt - 1
	.long A(gdt)
idtr:
	.word idt_end - idt - 1
	.long A(idt)
	.balign 4
resume:
	.long 0
tss:
	.long 0, 0x6000, 0x10
	.fill 100 - 12, 1, 0
	.word 0, 104
	.fill 2, 1, 0			/* ports 0-15 */
	.byte 0xf0, 0xff		/* 10h-13h */
	.fill 136 + 1 - 108, 1, 0xff
	.balign 4
tss2:
	.fill 32, 1, 0
	.long A(task2), 2, 0, 0, 0, 0, 0x5000, 0, 0, 0
	.long 0x10, 8, 0x10, 0x10, 0, 0, 0
	.word 0, 104
tss3:
	.long 0, 0x4800, 0x10
	.fill 32 - 12, 1, 0
	.long 0x1234, 2, 0, 0, 0, 0, 0x4400, 0, 0, 0
	.long 0, 0x1b, 0, 0, 0, 0, 0
	.word 0, 104
tss16:
	.fill 14, 1, 0
	.word A(task16), 2, 0x1234, 0, 0, 0, 0x4c00, 0, 0, 0
	.word 0x10, 8, 0x10, 0x10, 0
guest_protected_end:

/* ---- Long mode ---- */
#undef A
#define A(l) (l - guest64 + 0x8000)
#define FAULT64(...) movq $A(9f), %r15; __VA_ARGS__; 9:

	.global guest_long, guest_long_end
	.balign 16
guest64:
guest_long:
	.code16
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $0x7000, %sp
	lgdtl A(gdtr64)
	movl $0x20, %eax
	movl %eax, %cr4
	movl $0x1000, %eax		/* tables are made by the host */
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x101, %eax
	wrmsr
	movl %cr0, %eax
	orl $0x80000001, %eax
	movl %eax, %cr0
	ljmpl $8, $A(long_mode)
	.code64
long_mode:
	xorl %eax, %eax
	movl %eax, %ds
	movl %eax, %ss
	movl $0x7000, %esp
	lidt A(idtr64)
	movl $0x30, %eax
	ltr %ax
	movl $0xc0000080, %ecx
	rdmsr
	outl %eax, $0x10		/* LMA */
	movl $0x7005, %esp
	int $0x30			/* frame is aligned; rSP comes back */
	movl %esp, %eax
	outl %eax, $0x10
	movl $0x7000, %esp
	int $0x31			/* IST 1 */

	FAULT64(movq %cr0, %rcx; btrq $31, %rcx; movq %rcx, %cr0)
	FAULT64(xorl %ecx, %ecx; movq %rcx, %cr4)
	FAULT64(movq $-1, %rcx; movq %rcx, %cr3)
	FAULT64(movl $0x12345678, %ecx; rdmsr)
	FAULT64(movl $0xc0000080, %ecx; rdmsr; btrl $8, %eax; wrmsr)
	FAULT64(movabsq $0x800000000000, %rcx; movb (%rcx), %al)
	FAULT64(movabsq $0x800000000000, %rcx; pushq %rcx; ret)
	movl $0x7000, %esp
	FAULT64(movl $0x40000000, %ecx; movb (%rcx), %al)
	movq %cr2, %rax
	outl %eax, $0x10
	FAULT64(movl $0xc0000100, %ecx; xorl %eax, %eax; movl $0x8000, %edx; wrmsr)
	FAULT64(int $0xff)		/* outside the IDT */
	FAULT64(ljmpl *A(bad_l_d))	/* L and D */

	FAULT64(rdfsbase %rax)		/* CR4.FSGSBASE is 0 */
	movq %cr4, %rax
	orl $0x10000, %eax
	movq %rax, %cr4
	movl $0x1234, %eax
	wrfsbase %rax
	FAULT64(movabsq $0x800000000000, %rax; wrfsbase %rax)
	rdfsbase %rax
	outl %eax, $0x10
	FAULT64(sysenter)		/* not in long mode on AMD */

	/* SYSCALL MSRs: STAR 08/1b, LSTAR, CSTAR, mask IF */
	movl $0xc0000083, %ecx
	movl $A(entry32), %eax
	xorl %edx, %edx
	wrmsr
	movl $0xc0000081, %ecx
	xorl %eax, %eax
	movl $0x001b0008, %edx
	wrmsr
	movl $0xc0000082, %ecx
	movl $A(entry64), %eax
	xorl %edx, %edx
	wrmsr
	movl $0xc0000084, %ecx
	movl $0x200, %eax
	wrmsr
	/* a ring 3 base of GS for SWAPGS */
	movl $0xc0000102, %ecx
	movl $0x5555, %eax
	wrmsr
	pushq $0x23
	pushq $0x6800
	pushq $0x3202			/* IOPL 3: it reports as well */
	pushq $0x2b
	pushq $A(user64)
	iretq
user64:
	movl %cs, %eax
	outl %eax, $0x10
	FAULT64(movb 0x100000, %al)	/* supervisor page */
	FAULT64(movl $0, 0x200000)	/* read-only page */
	FAULT64(hlt)
	FAULT64(swapgs)
	xorl %edi, %edi
	syscall
	movl %cs, %eax			/* STAR[63:48] + 16 | 3 */
	outl %eax, $0x10
	movl %ss, %eax
	outl %eax, $0x10
	pushfq
	popq %rax
	andl $0x200, %eax
	outl %eax, $0x10
	lcall *A(gate_ptr)
	movl %esp, %eax
	outl %eax, $0x10
	/* AMD's SYSRET does not look at RCX: the fetch faults, in ring 3 */
	FAULT64(movl $2, %edi; syscall)
	movl %cs, %eax
	outl %eax, $0x10
	ljmpl *A(compat_ptr)
	.code32
compat:
	movl %cs, %eax
	outl %eax, $0x10
	syscall
	movl %cs, %eax
	outl %eax, $0x10
	ljmpl $0x2b, $A(back64)
	.code64
back64:
	movl $1, %edi
	syscall

gate64_target:
	movl %cs, %eax
	outl %eax, $0x10
	movl 8(%rsp), %eax
	outl %eax, $0x10
	movl 24(%rsp), %eax
	outl %eax, $0x10
	lretq
entry32:
	movl %cs, %eax
	outl %eax, $0x10
	sysretl
entry64:
	cmpl $1, %edi
	je 1f
	ja 2f
	pushfq
	popq %rax
	andl $0x200, %eax
	outl %eax, $0x10		/* masked */
	movl %ss, %eax
	outl %eax, $0x10
	swapgs
	pushq %rcx
	movl $0xc0000101, %ecx
	rdmsr
	outl %eax, $0x10
	popq %rcx
	swapgs
	sysretq
1:	outb %al, $0xf4
2:	movabsq $0x800000000000, %rcx
	sysretq

int30_64:
	movl %esp, %eax
	outl %eax, $0x10		/* 7000h - 40 */
	iretq
int31_64:
	movl %esp, %eax
	outl %eax, $0x10		/* 6000h - 40 */
	movl %ss, %eax
	outl %eax, $0x10
	iretq

	.macro stub64 vec, has
fault64_\vec:
	.if \has == 0
	pushq $0
	.endif
	pushq $\vec
	jmp fault64
	.endm
	stub64 6, 0
	stub64 8, 1
	stub64 13, 1
	stub64 14, 1
fault64:
	pushq %rax
	movl 8(%rsp), %eax
	shll $16, %eax
	orl 16(%rsp), %eax
	outl %eax, $0x10
	movq %r15, 24(%rsp)
	popq %rax
	addq $16, %rsp
	iretq

	.macro gate64 type, ist, target
	.word A(\target) & 0xffff, 8, \type << 8 | \ist, 0
	.quad 0
	.endm
	.balign 16
idt64:
	.fill 16 * 6, 1, 0
	gate64 0x8e, 0, fault64_6
	.fill 16, 1, 0
	gate64 0x8e, 0, fault64_8
	.fill 16 * 4, 1, 0
	gate64 0x8e, 0, fault64_13
	gate64 0x8e, 0, fault64_14
	.fill 16 * (0x30 - 15), 1, 0
	gate64 0x8e, 0, int30_64
	gate64 0x8e, 1, int31_64
idt64_end:
gdt64:
	.quad 0
	.quad 0x00af9a000000ffff	/* 08 code */
	.quad 0x00cf92000000ffff	/* 10 data */
	.quad 0x00cffa000000ffff	/* 18 code 32, ring 3 */
	.quad 0x00cff2000000ffff	/* 20 data, ring 3 */
	.quad 0x00affa000000ffff	/* 28 code, ring 3 */
	.word 103, A(tss64), 0x8900, 0	/* 30 TSS, two slots */
	.quad 0
	.quad 0x00ef9a000000ffff	/* 40 L and D */
	.word A(gate64_target), 8, 0xec00, 0 /* 48 call gate */
	.quad 0
gdt64_end:
gdtr64:
	.word gdt64_end - gdt64 - 1
	.long A(gdt64)
idtr64:
	.word idt64_end - idt64 - 1
	.quad A(idt64)
gate_ptr:
	.long 0
	.word 0x4b
compat_ptr:
	.long A(compat)
	.word 0x1b
bad_l_d:
	.long 0
	.word 0x40
tss64:
	.long 0
	.quad 0x5000, 0, 0, 0, 0x6000
	.fill 104 - 44 - 2, 1, 0
	.word 108
	.byte 0xff
guest_long_end:

/* ---- Debug registers, in real mode ---- */
#undef A
#define A(l) (l - guest16 + 0x8000)

	.global guest_debug, guest_debug_end, guest_debug_int3, guest_debug_steps
	.balign 16
guest16:
guest_debug:
	.code16
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $0x7000, %sp
	movl $A(db), 4
	movl $A(de), 0
	pushfw
	popw %ax
	orw $0x100, %ax
	pushw %ax
	popfw
	nop				/* the step ends behind this one */
step_1:
	pushfw
	popw %ax
	orw $0x100, %ax
	pushw %ax
	popfw
	movw %bx, %ss			/* no trap between this and the next */
	nop
step_2:
	movw $A(just_iret), 0x84
	movw $0, 0x86
	pushfw
	popw %ax
	orw $0x100, %ax
	pushw %ax
	popfw
	int $0x21			/* clears TF before it ends: no trap; IRET sets it again */
	nop
step_3:
	movl $0x6001, %eax		/* data breakpoint: write, two bytes at 6000h */
	movl %eax, %dr0
	movl $0x50001, %eax
	movl %eax, %dr7
	movb 0x6001, %al		/* a read does not hit */
	movb %al, 0x6002
	movb %al, 0x6001
data_1:
	movl $A(exec_1), %eax		/* instruction breakpoint */
	movl %eax, %dr1
	movl $0x8, %eax
	movl %eax, %dr7
	nop
exec_1:
	movl $0x2000, %eax		/* general detect */
	movl %eax, %dr7
detect_1:
	movl %dr0, %ebx
	movl $8, %eax			/* I/O breakpoint */
	movl %eax, %cr4
	movl $0x20, %eax
	movl %eax, %dr2
	movl $0x02000010, %eax
	movl %eax, %dr7
	inb $0x20, %al
io_1:
	xorl %eax, %eax
	movl %eax, %dr7
	movl %eax, %cr4
	movl %dr5, %ebx			/* DR7 while CR4.DE is 0 */
	movl %ebx, %eax
	outl %eax, $0x10
guest_debug_steps:
	nop
	nop
guest_debug_int3:
	int3
	outb %al, $0xf4
de:
	outb %al, $0xf4
just_iret:
	iretw
db:
	pushw %bp
	movw %sp, %bp
	pushl %eax
	xorl %eax, %eax
	movl %eax, %dr7
	movl %dr6, %eax
	shll $16, %eax
	movw 2(%bp), %ax
	subw $A(guest16), %ax
	outl %eax, $0x10
	xorl %eax, %eax
	movl %eax, %dr6
	andw $0xfeff, 6(%bp)
	popl %eax
	popw %bp
	iretw
guest_debug_end:
	.balign 4
	.global guest_debug_at
guest_debug_at:
	.word step_1 - guest16, step_2 - guest16, step_3 - guest16, data_1 - guest16, exec_1 - guest16
	.word detect_1 - guest16, io_1 - guest16

	.section .note.GNU-stack, "", @progbits
