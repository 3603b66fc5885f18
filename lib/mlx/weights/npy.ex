defmodule Mlx.Weights.Npy do
  @moduledoc false

  # NumPy's arrays: a magic number, a literal of Python's, the bytes of the array
  # (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

  alias Mlx.Weights.{Entry, Source}

  # NumPy itself writes no more than some hundred bytes.
  @longest 65_536
  @longest_prefix 12

  @doc """
  How many bytes of an array's start are enough.
  """
  def longest, do: @longest_prefix + @longest

  @types %{
    "b1" => {:u, 8},
    "i1" => {:s, 8},
    "i2" => {:s, 16},
    "i4" => {:s, 32},
    "i8" => {:s, 64},
    "u1" => {:u, 8},
    "u2" => {:u, 16},
    "u4" => {:u, 32},
    "u8" => {:u, 64},
    "f2" => {:f, 16},
    "f4" => {:f, 32},
    "f8" => {:f, 64},
    "c8" => {:c, 64},
    # What MLX's Python writes for bf16, which NumPy has no name for.
    "V2" => {:bf, 16}
  }

  @names for {name, type} <- @types, name not in ["b1", "V2"], into: %{}, do: {type, name}

  @doc """
  The entry of a file with one array, named like the file.
  """
  def parse!(%Source{path: path, size: size} = source) do
    start = Source.read!(source, 0, min(longest(), size))
    name = path |> Path.basename() |> Path.rootname()
    {entry, header} = header!(source, name, start)
    entry = %{entry | offset: header}

    case fit(entry, size - header) do
      {:ok, entry} -> {%{}, [entry]}
      {:error, message} -> Source.fail!(source, message)
    end
  end

  @doc """
  The entry of an array if so many bytes follow its header as there are to be. Of a type
  that there is no tensor of, their number is not known.
  """
  def fit(%Entry{type: nil} = entry, rest) when rest >= 0, do: {:ok, %{entry | length: rest}}
  def fit(%Entry{length: rest} = entry, rest), do: {:ok, entry}
  def fit(entry, rest), do: {:error, "has #{rest} bytes of values, #{entry.length} are to be"}

  @doc """
  The entry of an array that begins with `start`, at offset 0, and the bytes before its
  values.
  """
  def header!(source, name, start) do
    with {:ok, text, length} <- literal(start),
         {:ok, fields} <- fields(text),
         %{"descr" => stored, "fortran_order" => reversed, "shape" => shape} <- fields,
         true <- is_binary(stored) and is_boolean(reversed) and is_list(shape),
         {:ok, type, swapped} <- type(stored) do
      entry = %Entry{
        name: name,
        source: source,
        offset: 0,
        length: if(type, do: Enum.product(shape) * div(elem(type, 1), 8), else: 0),
        stored: stored,
        type: type,
        shape: shape,
        swapped: swapped,
        form: if(reversed and length(shape) > 1, do: :reversed, else: :plain)
      }

      {entry, length}
    else
      {:error, reason} -> Source.fail!(source, "#{Source.shown(name)} #{reason}")
      _ -> Source.fail!(source, "#{Source.shown(name)} has a header that is none of NumPy's")
    end
  end

  defp literal(<<0x93, "NUMPY", 1, 0, length::little-16, text::binary-size(length), _::binary>>),
    do: {:ok, text, 10 + length}

  defp literal(<<0x93, "NUMPY", version, 0, length::little-32, rest::binary>>)
       when version in [2, 3] and length <= @longest and byte_size(rest) >= length,
       do: {:ok, binary_part(rest, 0, length), 12 + length}

  defp literal(_bytes), do: :error

  # {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
  defp fields(text) do
    case Regex.run(~r/\A\{(.*)\}\s*\z/s, text) do
      [_, inside] -> fields(inside, %{})
      nil -> :error
    end
  end

  defp fields(text, fields) do
    tuple = ~S"\(\s*(?:\d{1,19}\s*,\s*)*(?:\d{1,19}\s*)?\)"
    pair = ~r/\A\s*'(\w+)'\s*:\s*('[^']*'|True|False|#{tuple})\s*(?:,|\z)/

    case Regex.run(pair, text) do
      [all, name, value] when not is_map_key(fields, name) ->
        rest = binary_part(text, byte_size(all), byte_size(text) - byte_size(all))
        fields(rest, Map.put(fields, name, value(value)))

      nil ->
        cond do
          String.trim(text) == "" -> {:ok, fields}
          text =~ ~r/\A\s*'descr'\s*:\s*\[/ -> {:error, "has elements of several fields"}
          true -> :error
        end

      _ ->
        :error
    end
  end

  defp value("True"), do: true
  defp value("False"), do: false
  defp value("'" <> rest), do: String.trim_trailing(rest, "'")

  defp value(tuple),
    do: for([digits] <- Regex.scan(~r/\d+/, tuple), do: String.to_integer(digits))

  defp type(<<order, name::binary>>) when order in ~c"<>|=" do
    case {@types[name], order} do
      {nil, _} -> {:ok, nil, 1}
      {{:c, bits}, ?>} -> {:ok, {:c, bits}, div(bits, 16)}
      {{_, bits} = type, ?>} -> {:ok, type, div(bits, 8)}
      {type, _} -> {:ok, type, 1}
    end
  end

  defp type(_stored), do: :error

  @doc """
  The format's name of a type, or `nil`.
  """
  def type_name(type), do: Map.get(@names, type)

  @doc """
  What comes before the bytes of an array like the template.
  """
  def header(%{type: {_, bits} = type, shape: shape}) do
    order = if bits == 8, do: "|", else: "<"
    dims = shape |> Tuple.to_list() |> Enum.map_join(" ", &"#{&1},")
    dims = if tuple_size(shape) > 1, do: String.trim_trailing(dims, ","), else: dims

    text =
      "{'descr': '#{order}#{type_name(type)}', 'fortran_order': False, 'shape': (#{dims}), }"

    filler = 64 - rem(10 + byte_size(text) + 1, 64)
    text = text <> String.duplicate(" ", filler) <> "\n"
    <<0x93, "NUMPY", 1, 0, byte_size(text)::little-16, text::binary>>
  end
end
