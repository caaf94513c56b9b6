/*
 * Multiboot-1 entry of a 64-bit guest: page tables that map the first 4 GiB one to one with 2-MiB
 * pages open to ring 3, long mode, main(). Application processors enter by the trampoline that
 * smp.c copies below 1 MiB and join at ap_start32.
 */
	.section .multiboot, "a"
	.align 4
	.long 0x1badb002, 0x3, -(0x1badb002 + 0x3)

	.section .start, "ax"
	.code32
	.global _start
_start:
	cli
	cld
	mov %eax, boot_info
	mov %ebx, boot_info + 4
	/* four page directories, a page directory pointer table, a PML4 */
	mov $boot_pd, %edi
	mov $0x87, %eax
	xor %edx, %edx
1:	mov %eax, (%edi)
	mov %edx, 4(%edi)
	add $8, %edi
	add $0x200000, %eax
	jnc 1b
	mov $boot_pdpt, %edi
	mov $boot_pd + 7, %eax
	mov $4, %ecx
2:	mov %eax, (%edi)
	add $8, %edi
	add $0x1000, %eax
	loop 2b
	movl $boot_pdpt + 7, boot_pml4
	mov $stacks + 0x8000, %esp
	xor %ebx, %ebx
	jmp to_long

	.global ap_start32
ap_start32:
	mov $1, %ebx
	lock xadd %ebx, ap_next
	mov %ebx, %esp
	inc %esp
	shl $15, %esp
	add $stacks, %esp
to_long:
	lgdt gdt_reg
	mov $0x6a0, %eax /* PAE, PGE, OSFXSR, OSXMMEXCPT */
	mov %eax, %cr4
	mov $boot_pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x900, %eax /* NXE, LME */
	wrmsr
	mov $0x80010033, %eax /* PG WP NE ET MP PE */
	mov %eax, %cr0
	ljmp $0x08, $3f
	.code64
3:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %eax, %fs
	mov %eax, %gs
	mov %ebx, %edi
	test %ebx, %ebx
	jnz 4f
	call guest_main
	hlt
4:	call smp_ap_main
	hlt

	/* copied to AP_TRAMPOLINE */
	.global ap_tramp_start, ap_tramp_end
	.code16
ap_tramp_start:
	cli
	mov %cs, %ax
	mov %ax, %ds
	lgdtl gdt_reg_tramp - ap_tramp_start
	mov $0x11, %eax
	mov %eax, %cr0
	ljmpl $0x18, $5f
gdt_reg_tramp:
	.word 192 * 8 - 1
	.long gdt
ap_tramp_end:
	.code32
5:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	jmp ap_start32

	.data
	.global gdt_reg, ap_next
	.align 8
gdt_reg:
	.word 192 * 8 - 1
	.quad gdt
	.align 4
ap_next:
	.long 1

	.bss
	.global boot_pml4, boot_pdpt, boot_pd
	.align 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
	.global stacks
	.align 16
stacks:	.skip 8 * 0x8000
	.section .note.GNU-stack, "", @progbits
