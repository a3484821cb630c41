"""What people read: tables, times and trees for the terminal. No click here, and rich only where a table is drawn."""
