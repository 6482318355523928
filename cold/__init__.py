"""PostgreSQL: everything an agent ever was. Plans (`reads`), what runs them (`client`), and what writes (`drain`)."""
