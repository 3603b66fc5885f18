defmodule Mlx.Weights.Source do
  @moduledoc false

  # A file that parts are read from. It is open only while one is read, so that nothing
  # has to be closed; what it was when it was found tells whether it still is the same.

  alias Mlx.{Dispatch, Native}

  @enforce_keys [:path, :size, :inode, :modified]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          path: String.t(),
          size: non_neg_integer,
          inode: non_neg_integer,
          modified: integer
        }

  @doc """
  The file at a path, if it is one that can be read at any place.
  """
  def find!(path) do
    case File.stat(path, time: :posix) do
      {:ok, %File.Stat{type: :regular, size: size, inode: inode, mtime: modified}} ->
        %__MODULE__{path: path, size: size, inode: inode, modified: modified}

      {:ok, %File.Stat{type: type}} ->
        fail!(path, "is no file but of type #{type}")

      {:error, reason} ->
        fail!(path, format(reason))
    end
  end

  @doc """
  Bytes of the file, fewer if it ends before.
  """
  def read!(%__MODULE__{path: path}, offset, length) do
    read = fn file ->
      case :file.pread(file, offset, length) do
        :eof -> {:ok, ""}
        other -> other
      end
    end

    with {:ok, outcome} <- File.open(path, [:read, :raw, :binary], read),
         {:ok, bytes} <- outcome do
      bytes
    else
      {:error, reason} -> fail!(path, format(reason))
    end
  end

  @doc """
  A tensor like the template, whose bytes go from the file to the device without the
  memory of the VM.

  ## Options

    * `:swapped` - the width of numbers that are in the other byte order, 1 by default
    * `:packed` - how the bytes are packed in an archive
    * `:blocks` - the blocks that the values are a field of

  """
  def load(%__MODULE__{} = source, offset, template, device, opts) do
    part = %{
      path: source.path,
      size: source.size,
      inode: source.inode,
      modified: source.modified,
      offset: offset,
      length: Nx.byte_size(template),
      swapped: opts[:swapped] || 1,
      packed: opts[:packed],
      blocks: opts[:blocks]
    }

    Dispatch.from_bytes(template, device, fn device, dims, type ->
      Dispatch.await(&Native.file_load(device, part, dims, type, &1))
    end)
  end

  @doc """
  Raises because of what is at a path.
  """
  def fail!(%__MODULE__{path: path}, message), do: fail!(path, message)

  def fail!(path, message) do
    raise Mlx.Error, kind: :io, message: "#{shown(path)}: #{message}"
  end

  @doc """
  A path, or a name from a file, of whatever bytes and however many, for a message.
  """
  def shown(name) when byte_size(name) > 1000, do: shown(binary_part(name, 0, 1000)) <> "…"
  def shown(name), do: inspect(name, binaries: :as_strings)

  @doc """
  What a reason of Erlang's means.
  """
  def format(reason), do: reason |> :file.format_error() |> List.to_string()
end
