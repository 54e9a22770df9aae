"""Many LoRA adapters over few slots: what ``weir bench lora`` is made of."""
