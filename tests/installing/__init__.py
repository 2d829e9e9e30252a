"""What an installed package needs: its lower bounds, and a first use without the checkout."""
