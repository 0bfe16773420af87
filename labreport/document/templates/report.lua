-- Pandoc filter between the notebooks' HTML and both documents: it aligns columns of numbers to the right, shares a page's
-- width among the columns of wide tables, turns a link whose target is not in this document into plain text, and keeps
-- the PDF's figures in their sections and its chapters on pages of their own.
local stringify, utf8_length = pandoc.utils.stringify, pandoc.text.len

-- Widths in characters.
local WIDE = 106 -- a row that still fits the text's width at a readable size, each column counted with its gap
local PAGE, PAGE_AND_MARGINS = 116, 148 -- in the sizes that the PDF's template gives to wide tables
local MANY = 6 -- columns; with more, the template lets a table reach into the margins
local GAP = 3
local SHORT = 22 -- a column whose cells are no longer keeps each of them in one line

local function is_number(text)
  return text:gsub("−", "-"):match("^[-+≤<≥>~%[(]*%s?%d") ~= nil
end

local function longest_word(text)
  local longest = 0
  for word in text:gmatch("%S+") do longest = math.max(longest, utf8_length(word)) end
  return longest
end

-- Per column: whether it holds numbers, its longest cell, and the longest word in it or its heading, in characters.
local function measure(tbl)
  local columns = {}
  for i in ipairs(tbl.colspecs) do columns[i] = { numbers = 0, words = 0, cell = 0, word = 0 } end
  for _, row in ipairs(tbl.head.rows) do
    for i, cell in ipairs(row.cells) do columns[i].word = longest_word(stringify(cell.contents)) end
  end
  for _, body in ipairs(tbl.bodies) do
    for _, row in ipairs(body.body) do
      for i, cell in ipairs(row.cells) do
        local text, column = stringify(cell.contents), columns[i]
        local kind = is_number(text) and "numbers" or text:match("%a") and "words"
        if kind then column[kind] = column[kind] + 1 end
        column.cell = math.max(column.cell, utf8_length(text))
        column.word = math.max(column.word, longest_word(text))
      end
    end
  end
  return columns
end

-- Each column's share of the width: short cells stay whole, longer ones get what is left by what they lack.
local function shares(columns)
  local page = #columns > MANY and PAGE_AND_MARGINS or PAGE
  local needed, lacking = 0, 0
  for _, column in ipairs(columns) do
    column.least = GAP + math.max(column.cell <= SHORT and column.cell or 0, column.word)
    column.lack = math.max(column.cell + GAP - column.least, 0)
    needed, lacking = needed + column.least, lacking + column.lack
  end
  local spare = math.max(page - needed, 0)
  local given = math.min(spare, lacking)
  local widths = {}
  for i, column in ipairs(columns) do
    local extra = lacking > 0 and given * column.lack / lacking or 0
    widths[i] = (column.least + extra + (spare - given) / #columns) / (needed + spare)
  end
  return widths
end

local function lay_out(tbl)
  local columns, width = measure(tbl), 0
  for _, column in ipairs(columns) do width = width + math.max(column.cell, column.word) + GAP end
  local widths = FORMAT == "typst" and width > WIDE and shares(columns) or {}
  for i, column in ipairs(columns) do
    local align = tbl.colspecs[i][1]
    if align == pandoc.AlignDefault then
      align = column.numbers > 3 * column.words and pandoc.AlignRight or pandoc.AlignLeft
    end
    tbl.colspecs[i] = { align, widths[i] }
  end
  return tbl
end

local function unlink_strangers(document)
  local targets = {}
  local function note(element) targets["#" .. element.identifier] = true end
  document:walk({ Header = note, Figure = note, Table = note })
  return document:walk({
    Link = function(link)
      if link.target:sub(1, 1) == "#" and not targets[link.target] then return link.content end
    end,
  })
end

-- Figures wait for a free place at the top or bottom of a page: none is carried into the next section.
local FLUSH, NEW_PAGE = "#place.flush()", "#pagebreak(weak: true)"

local function begin_section(header)
  if FORMAT ~= "typst" or header.level > 2 then return end
  local before = header.level == 1 and FLUSH .. "\n" .. NEW_PAGE or FLUSH
  return { pandoc.RawBlock("typst", before), header }
end

return { { Table = lay_out }, { Pandoc = unlink_strangers }, { Header = begin_section } }
