defmodule Mlx.Livebook do
  @moduledoc """
  Runs the code of a document: the cells of a Livebook, or the blocks of a guide.

  The blocks of Elixir run one after the other in this process, with the variables, aliases
  and imports of those before. Left out are those that install packages, and those that
  Livebook shows as text (`force_markdown`). A line `#=> value` at the end of a block says
  what the block gives, and is held against it as `inspect/1` prints it.
  """

  import ExUnit.Assertions

  defmodule Cell do
    @moduledoc false
    @enforce_keys [:code, :line, :expected]
    defstruct [:code, :line, :expected]
  end

  @block ~r/^(<!-- livebook:\{"force_markdown":true\} -->\n+)?```elixir\n(.*?)^```$/ms

  @doc """
  The blocks of a text that run, with the lines at which they begin.
  """
  def cells(text) do
    for [_, {as_text, _}, {at, length}] <- Regex.scan(@block, text, return: :index),
        code = binary_part(text, at, length),
        as_text == -1 and not (code =~ "Mix.install(") do
      line = text |> binary_part(0, at) |> String.split("\n") |> length()
      %Cell{code: code, line: line, expected: expected(code)}
    end
  end

  defp expected(code) do
    case Regex.run(~r/^#=> (.*)\n\z/m, code) do
      [_, value] -> value
      nil -> nil
    end
  end

  @doc """
  Runs a file. What a block raises is raised, with the file and the line.
  """
  def run(path), do: run(File.read!(path), path)

  def run(text, path) do
    cells = cells(text)
    assert cells != [], "#{path} has no code"
    Enum.reduce(cells, {[], Code.env_for_eval(file: path)}, &step(&1, &2, path))
    :ok
  end

  defp step(%Cell{} = cell, {binding, env}, path) do
    quoted = Code.string_to_quoted!(cell.code, file: path, line: cell.line)
    {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)

    if cell.expected do
      assert inspect(value, width: 10_000) == cell.expected,
             "#{path}:#{cell.line} gives #{inspect(value)}, not #{cell.expected}"
    end

    {binding, env}
  end
end
