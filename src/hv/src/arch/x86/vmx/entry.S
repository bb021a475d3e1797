// The world switch. `entry.rs` gives the offsets and declares the function:
//
//     extern "sysv64" fn vmx_enter(frame: *mut EntryFrame, launched: u64) -> u64
//
//     register             guest's value               hypervisor's value
//     RAX RCX RDX RBX      frame.gp, both ways         not kept, but RBX on the stack
//     RSP                  VMCS guest state            VMCS host state, frame.host_rsp says what it holds
//     RBP R12..R15         frame.gp, both ways         stack
//     RSI RDI R8..R11      frame.gp, both ways         not kept
//     RIP RFLAGS           VMCS guest state            VMCS host state; RFLAGS is 2 after an exit
//     segments, CR, EFER,
//     PAT, DR7, DEBUGCTL   VMCS guest state            VMCS host state
//     vector state, XCR0, CR2, DR0-3, DR6,
//     STAR and its kin     in the register             not used
//
// The stack while the guest runs, from RSP up: frame, R15, R14, R13, R12, RBP, RBX, return address.

    .global vmx_enter
    .type vmx_enter, @function
vmx_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    // The depth of the stack hardly ever changes between two entries of one VP.
    cmp [rdi + {HOST_RSP}], rsp
    je 2f
    mov eax, {HOST_RSP_FIELD}
    vmwrite rax, rsp
    jbe 5f
    mov [rdi + {HOST_RSP}], rsp
2:
    // ZF picks VMLAUNCH; MOV changes no flag.
    test esi, esi
    mov rax, [rdi + {GP} + 8 * 0]
    mov rcx, [rdi + {GP} + 8 * 1]
    mov rdx, [rdi + {GP} + 8 * 2]
    mov rbx, [rdi + {GP} + 8 * 3]
    mov rbp, [rdi + {GP} + 8 * 5]
    mov rsi, [rdi + {GP} + 8 * 6]
    mov r8,  [rdi + {GP} + 8 * 8]
    mov r9,  [rdi + {GP} + 8 * 9]
    mov r10, [rdi + {GP} + 8 * 10]
    mov r11, [rdi + {GP} + 8 * 11]
    mov r12, [rdi + {GP} + 8 * 12]
    mov r13, [rdi + {GP} + 8 * 13]
    mov r14, [rdi + {GP} + 8 * 14]
    mov r15, [rdi + {GP} + 8 * 15]
    mov rdi, [rdi + {GP} + 8 * 7]
    jz 3f
    vmresume
    jmp 5f
3:
    vmlaunch
5:
    // VMfail: no guest ran. CF: no current VMCS, 1. ZF: the VMCS holds an error number, 2.
    mov eax, 2
    mov ecx, 1
    cmovc eax, ecx
    jmp 6f

    .global vmx_exit
    .type vmx_exit, @function
vmx_exit:
    // Here the processor goes on after an exit, with RSP as it was at the entry.
    push rax
    mov rax, [rsp + 8]
    mov [rax + {GP} + 8 * 1], rcx
    mov [rax + {GP} + 8 * 2], rdx
    mov [rax + {GP} + 8 * 3], rbx
    mov [rax + {GP} + 8 * 5], rbp
    mov [rax + {GP} + 8 * 6], rsi
    mov [rax + {GP} + 8 * 7], rdi
    mov [rax + {GP} + 8 * 8], r8
    mov [rax + {GP} + 8 * 9], r9
    mov [rax + {GP} + 8 * 10], r10
    mov [rax + {GP} + 8 * 11], r11
    mov [rax + {GP} + 8 * 12], r12
    mov [rax + {GP} + 8 * 13], r13
    mov [rax + {GP} + 8 * 14], r14
    mov [rax + {GP} + 8 * 15], r15
    pop qword ptr [rax + {GP} + 8 * 0]
    // Nothing that the hypervisor does speculatively may start from a guest's value.
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor eax, eax
6:
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    .size vmx_enter, . - vmx_enter
