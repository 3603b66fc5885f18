defmodule Mlx.Json do
  @moduledoc false

  # JSON for what Mlx itself writes. Elixir has an encoder only since 1.18, and a package
  # for this alone would be one more for everybody.

  @doc """
  The JSON of maps with atoms or strings as keys, lists, numbers, strings, atoms and `nil`.
  """
  def encode(nil), do: "null"
  def encode(boolean) when is_boolean(boolean), do: Atom.to_string(boolean)
  def encode(atom) when is_atom(atom), do: atom |> Atom.to_string() |> encode()
  def encode(integer) when is_integer(integer), do: Integer.to_string(integer)
  def encode(float) when is_float(float), do: Float.to_string(float)
  def encode(string) when is_binary(string), do: [?", escape(string), ?"]
  def encode(list) when is_list(list), do: [?[, list |> Enum.map(&encode/1) |> commas(), ?]]

  def encode(%{} = map) do
    pairs = for {key, value} <- map, do: [encode(to_string(key)), ?:, encode(value)]
    [?{, commas(pairs), ?}]
  end

  defp commas(parts), do: Enum.intersperse(parts, ?,)

  defp escape(string) do
    for <<char::utf8 <- string>>, into: "" do
      cond do
        char == ?" -> ~S(\")
        char == ?\\ -> ~S(\\)
        char < 0x20 -> "\\u" <> String.pad_leading(Integer.to_string(char, 16), 4, "0")
        true -> <<char::utf8>>
      end
    end
  end
end
