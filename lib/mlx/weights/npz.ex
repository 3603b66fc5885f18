defmodule Mlx.Weights.Npz do
  @moduledoc false

  # NumPy's archives: a zip file of arrays
  # (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT). Nothing is extracted, so
  # names are only names.

  alias Mlx.Weights.{Npy, Source}

  @longest_comment 65_535
  @longest_directory 64 * 1024 * 1024
  @unknown 0xFFFFFFFF

  @doc """
  The entries of the arrays.
  """
  def parse!(%Source{} = source) do
    {offset, length, count} = directory!(source)

    if length > @longest_directory or offset + length > source.size do
      fail!(source, "a directory where none can be")
    end

    members = source |> Source.read!(offset, length) |> members(source, count, [])
    entries = for %{name: name} = member <- members, do: entry!(source, array_name(name), member)

    if entries |> Enum.uniq_by(& &1.name) |> length() != length(entries) do
      fail!(source, "an array twice")
    end

    members |> Enum.sort_by(& &1.offset) |> separate!(source)
    {%{}, Enum.sort_by(entries, & &1.offset)}
  end

  defp fail!(source, what), do: Source.fail!(source, "the archive has #{what}")

  defp array_name(name), do: String.replace_suffix(name, ".npy", "")

  ## The directory, which the end of the file tells of

  defp directory!(%Source{size: size} = source) do
    from = max(size - @longest_comment - 22, 0)
    tail = Source.read!(source, from, size - from)

    # The last signature is the right one, unless a comment has one.
    with [_ | _] = places <- :binary.matches(tail, <<"PK", 5, 6>>),
         {at, 4} = List.last(places),
         <<_::binary-size(at), "PK", 5, 6, 0::32, _::16, count::little-16, length::little-32,
           offset::little-32, _::binary>> <- tail do
      if @unknown in [length, offset] or count == 0xFFFF,
        do: large_directory!(source, from + at - 20),
        else: {offset, length, count}
    else
      _ -> fail!(source, "no directory: it was cut short")
    end
  end

  defp large_directory!(source, at) when at >= 0 do
    with <<"PK", 6, 7, 0::32, offset::little-64, _::32>> <- Source.read!(source, at, 20),
         true <- offset + 56 <= source.size,
         <<"PK", 6, 6, _::binary-20, _::64, count::little-64, length::little-64,
           offset::little-64>> <-
           Source.read!(source, offset, 56) do
      {offset, length, count}
    else
      _ -> fail!(source, "no directory: it was cut short")
    end
  end

  defp large_directory!(source, _at), do: fail!(source, "no directory: it was cut short")

  defp members("", _source, 0, members), do: Enum.reverse(members)

  defp members(
         <<"PK", 1, 2, _::32, flags::little-16, method::little-16, _::32, crc::little-32,
           packed::little-32, size::little-32, name_length::little-16, extra_length::little-16,
           comment_length::little-16, _::64, offset::little-32, name::binary-size(name_length),
           extra::binary-size(extra_length), _::binary-size(comment_length), rest::binary>>,
         source,
         count,
         members
       )
       when count > 0 do
    if Bitwise.band(flags, 1) == 1, do: fail!(source, "#{Source.shown(name)} encrypted")
    if method not in [0, 8], do: fail!(source, "#{Source.shown(name)} in an unknown packing")
    [size, packed, offset] = large_sizes!([size, packed, offset], extra, source)

    member = %{
      name: :binary.copy(name),
      deflated: method == 8,
      crc: crc,
      packed: packed,
      size: size,
      offset: offset
    }

    members(rest, source, count - 1, [member | members])
  end

  defp members(_bytes, source, _count, _members), do: fail!(source, "a directory that is broken")

  # Those that don't fit 32 bits come in an extra field, in order.
  defp large_sizes!(sizes, extra, source) do
    if @unknown in sizes do
      {sizes, _rest} = Enum.map_reduce(sizes, large_field(extra), &large_size!(&1, &2, source))
      sizes
    else
      sizes
    end
  end

  defp large_size!(@unknown, <<size::little-64, rest::binary>>, _source), do: {size, rest}
  defp large_size!(@unknown, _field, source), do: fail!(source, "a directory that is broken")
  defp large_size!(size, field, _source), do: {size, field}

  defp large_field(<<1::little-16, length::little-16, field::binary-size(length), _::binary>>),
    do: field

  defp large_field(<<_::16, length::little-16, _::binary-size(length), rest::binary>>),
    do: large_field(rest)

  defp large_field(_extra), do: ""

  # Bombs have members that share their bytes.
  defp separate!(members, source) do
    for member <- members, reduce: 0 do
      free when member.offset < free -> fail!(source, "arrays that lie upon each other")
      _ -> member.offset + 30 + byte_size(member.name) + member.packed
    end
  end

  ## Arrays

  defp entry!(source, name, member) do
    offset = offset!(source, member)
    {entry, skipped} = Npy.header!(source, name, beginning(source, offset, member))

    case Npy.fit(entry, member.size - skipped) do
      {:ok, entry} ->
        packed = Map.take(member, [:deflated, :crc])
        packed = Map.merge(packed, %{length: member.packed, skipped: skipped})
        %{entry | offset: offset, packed: packed}

      {:error, message} ->
        Source.fail!(source, "#{Source.shown(name)} #{message}")
    end
  end

  # A header of the member's own comes before its bytes.
  defp offset!(source, %{offset: offset, name: name} = member) do
    with true <- offset + 30 <= source.size,
         <<"PK", 3, 4, _::binary-22, name_length::little-16, extra_length::little-16>> <-
           Source.read!(source, offset, 30),
         start = offset + 30 + name_length + extra_length,
         true <- start + member.packed <= source.size do
      start
    else
      _ -> fail!(source, "#{Source.shown(name)} in a place where it is not")
    end
  end

  # As many unpacked bytes as the header of an array can have.
  defp beginning(source, offset, %{deflated: false, packed: packed}) do
    Source.read!(source, offset, min(packed, Npy.longest()))
  end

  defp beginning(source, offset, %{deflated: true, packed: packed}) do
    bytes = Source.read!(source, offset, min(packed, Npy.longest()))
    zlib = :zlib.open()

    try do
      :zlib.inflateInit(zlib, -15)
      inflate(zlib, bytes, "")
    rescue
      _ in [ErlangError, ArgumentError] -> ""
    after
      :zlib.close(zlib)
    end
  end

  defp inflate(zlib, bytes, inflated) do
    case :zlib.safeInflate(zlib, bytes) do
      {:continue, [_ | _] = more} when byte_size(inflated) < 65_600 ->
        inflate(zlib, "", IO.iodata_to_binary([inflated | more]))

      {_, more} ->
        IO.iodata_to_binary([inflated | more])
    end
  end

  ## Writing

  @doc """
  What comes before the bytes of a member, after `offset` others, and its line of the
  directory.
  """
  def member(name, crc, size, offset) do
    sizes = if size >= @unknown, do: <<size::little-64, size::little-64>>, else: ""
    here = if sizes == "", do: size, else: @unknown
    place = if offset >= @unknown, do: <<offset::little-64>>, else: ""
    # Version 4.5, names in UTF-8, stored, the first of January 1980.
    fixed = <<45::little-16, 0x0800::little-16, 0::16, 0::16, 33::little-16, crc::little-32>>
    fixed = <<fixed::binary, here::little-32, here::little-32, byte_size(name)::little-16>>
    local = field(sizes)
    extra = field(sizes <> place)

    directory =
      <<"PK", 1, 2, 45::little-16, fixed::binary, byte_size(extra)::little-16, 0::80,
        min(offset, @unknown)::little-32, name::binary, extra::binary>>

    {<<"PK", 3, 4, fixed::binary, byte_size(local)::little-16, name::binary, local::binary>>,
     directory}
  end

  defp field(""), do: ""
  defp field(content), do: <<1::little-16, byte_size(content)::little-16, content::binary>>

  @doc """
  What comes after the directory of so many members and bytes, which is at `offset`.
  """
  def ending(count, length, offset) do
    large =
      <<"PK", 6, 6, 44::little-64, 45::little-16, 45::little-16, 0::64, count::little-64,
        count::little-64, length::little-64, offset::little-64, "PK", 6, 7, 0::32,
        offset + length::little-64, 1::little-32>>

    {few, short, near} = {min(count, 0xFFFF), min(length, @unknown), min(offset, @unknown)}
    large = if {few, short, near} == {count, length, offset}, do: "", else: large

    <<large::binary, "PK", 5, 6, 0::32, few::little-16, few::little-16, short::little-32,
      near::little-32, 0::16>>
  end
end
