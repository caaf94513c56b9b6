/* Multiboot-1 entry of a 32-bit guest: flat segments, paging off, one CPU, main(). */
	.section .multiboot, "a"
	.align 4
	.long 0x1badb002, 0x3, -(0x1badb002 + 0x3)

	.section .start, "ax"
	.global _start
_start:
	cli
	cld
	mov %eax, boot_info
	mov %ebx, boot_info + 4
	mov $stack_top, %esp
	lgdt gdt_reg
	ljmp $0x18, $1f
1:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %eax, %fs
	mov %eax, %gs
	mov %cr0, %eax
	and $~0xe, %eax
	or $0x22, %eax
	mov %eax, %cr0
	mov $0x600, %eax
	mov %eax, %cr4
	call guest_main
	hlt

	.data
	.global gdt_reg
	.align 8
gdt_reg:
	.word 192 * 8 - 1
	.long gdt

	.bss
	.align 16
	.skip 0x8000
stack_top:
	.section .note.GNU-stack, "", @progbits
