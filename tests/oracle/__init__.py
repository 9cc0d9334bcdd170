"""A second fold, deliberately naive and written from the rulings alone, to hold the platform's list against."""
