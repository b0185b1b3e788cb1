"""The paper's claims, tables and figures, and the plan of programs that makes them."""
