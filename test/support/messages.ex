defmodule Mlx.Messages do
  @moduledoc """
  The messages of errors, as the sources have them, with `…` for what is filled in.
  """

  @root Path.expand("../..", __DIR__)

  @doc """
  Messages by the file that has them.
  """
  def all do
    rust = for name <- ~w(mlx_core xtask), do: "native/#{name}/src/error.rs"
    elixir = @root |> Path.join("lib/**/*.ex") |> Path.wildcard()
    shell = for name <- ~w(common.sh setup), do: "bin/#{name}"

    for path <- rust ++ Enum.map(elixir, &Path.relative_to(&1, @root)) ++ shell,
        messages = path |> Path.extname() |> of_file(read(path)) |> Enum.filter(&telling?/1),
        messages != [],
        into: %{},
        do: {path, Enum.uniq(messages)}
  end

  def read(path), do: @root |> Path.join(path) |> File.read!()

  @doc """
  Text without what sets it: the breaks of lines and the marks of code.
  """
  def plain(text) do
    text |> String.replace(["`", "\\"], "") |> String.replace(~r/…+/u, "…") |> squeeze()
  end

  defp squeeze(text), do: text |> String.split() |> Enum.join(" ")

  # What is a message of something else, filled in, says nothing.
  defp telling?(message), do: message =~ ~r/\p{L}{2}/u

  defp of_file(".rs", source) do
    # A string may be broken by a backslash and indented.
    for [_, message] <- Regex.scan(~r/#\[error\(\s*"((?:[^"\\]|\\.)*)"/s, source) do
      message
      |> String.replace(~r/\\\n\s*/, "")
      |> String.split("\\n", parts: 2)
      |> hd()
      |> String.replace(~r/\{[^}]*\}/, "…")
      |> plain()
    end
  end

  defp of_file(".ex", source) do
    {_, messages} = source |> Code.string_to_quoted!() |> Macro.prewalk([], &raised/2)
    messages
  end

  # `fail MESSAGE REMEDY…`
  defp of_file(_shell, source) do
    for [_, message] <- Regex.scan(~r/\bfail "((?:[^"\\]|\\.)*)"/, source) do
      message |> String.replace(~r/\$(\([^)]*\)|[\w*]+|\{[^}]*\})/, "…") |> plain()
    end
  end

  # An exception, and a keyword list that becomes one.
  defp raised({:raise, _, [_module, argument]} = code, acc) when not is_atom(argument),
    do: {code, messages(argument) ++ acc}

  defp raised({:raise, _, [message]} = code, acc), do: {code, text(message) ++ acc}

  defp raised([{:kind, _} | _] = fields, acc), do: {fields, messages(fields) ++ acc}
  defp raised(code, acc), do: {code, acc}

  defp messages([{key, _} | _] = fields) when is_atom(key), do: text(fields[:message])
  defp messages(message), do: text(message)

  defp text(message) do
    case written(message) do
      nil -> []
      text -> [plain(text)]
    end
  end

  defp written(text) when is_binary(text), do: text

  defp written({:<>, _, [left, right]}), do: (written(left) || "…") <> (written(right) || "…")

  defp written({:<<>>, _, parts}) do
    Enum.map_join(parts, fn part -> if is_binary(part), do: part, else: "…" end)
  end

  defp written(_other), do: nil
end
