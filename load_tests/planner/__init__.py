"""What the capacity planner foretells beside what others published."""
