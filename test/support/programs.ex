defmodule Mlx.Programs do
  @moduledoc """
  Looks into compiled functions.
  """

  alias Mlx.Compiler.{Plan, Program}

  @doc """
  The instructions of a function, as maps of the `:row` and, in `:inner`, the names of the
  rows of the programs among its attributes, at any depth.
  """
  def tree(fun, args, opts \\ []) do
    for {:run, _, _, program} <- Mlx.Compiler.program(fun, args, opts).steps,
        {_inputs, instructions, _outputs} = Program.code(program),
        {row, _operands, attributes} <- instructions do
      %{row: row, inner: for(code <- attributes, Mlx.Graph.program?(code), do: all(code))}
    end
  end

  @doc """
  The names of all rows of a function, those of programs in programs among them.
  """
  def rows(fun, args, opts \\ []) do
    for %{row: row, inner: inner} <- tree(fun, args, opts), name <- [row | Enum.concat(inner)] do
      name
    end
  end

  defp all({_inputs, instructions, _outputs}) do
    for {row, _operands, attributes} <- instructions,
        inner = for(code <- attributes, Mlx.Graph.program?(code), do: all(code)),
        name <- [row | Enum.concat(inner)],
        do: name
  end

  @doc """
  How many constants each program of a plan has.
  """
  def constants(%Plan{steps: steps}) do
    for {:run, _, _, %Program{constants: count}} <- steps, do: count
  end
end
