"""How dates look to staff: sortable and unmistakable, whatever the language's own habit."""
