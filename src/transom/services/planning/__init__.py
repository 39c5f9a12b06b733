"""What a plan, or a steered answer, would read and write: sited, sized and priced before it runs."""
