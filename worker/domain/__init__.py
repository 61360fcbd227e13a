"""What a credential is, what Microsoft's answers mean and what follows from them. Pure: no I/O, no clock, no dice."""
